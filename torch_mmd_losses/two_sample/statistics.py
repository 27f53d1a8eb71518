"""Statistics of permutation tests, from the sums of kernel values of each division."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.two_sample.division_sums import GramSums, exact_sums
from torch_mmd_losses.two_sample.screening import can_screen, screened_sums

ROUGH = 256.0
"""Bound on the rounding errors of screened kernel values, as a multiple of the estimate for exact values.

It matters only if nearly all kernel values are equal, so that differences of MMD^2 are rounding errors.
"""


class Rule(NamedTuple):
    """The way to combine the estimates of MMD^2 with several kernels into one statistic."""

    unit: Callable[[GramSums, int, int], Tensor] | None
    """Returns the divisors of the estimates, `(r, 1)`, given the numbers of real and of fake samples."""
    combined: Callable[[Tensor], Tensor]
    """Returns the statistic `(B + 1,)` of quotients `(r, B + 1)`. It does not change by more than all of them do."""
    is_largest: bool
    """Whether the statistic is the largest quotient, so that the others do not matter."""


class Statistics(NamedTuple):
    """The quotients of `r` kernels for all divisions, which a rule combines into the statistic of the test."""

    values: Tensor
    """MMD^2 over `unit`, `(r, B + 1)`; the first division is the observed one."""
    rounding: Tensor
    """Estimates of their rounding errors, `(r, 1)`."""
    unit: Tensor
    """The divisors of MMD^2, `(r, 1)`."""


def threshold(statistics: Statistics, rule: Rule) -> Tensor:
    """Return the least statistic of a division that counts as equal to the observed one or larger."""
    return rule.combined(statistics.values[:, :1])[0] - statistics.rounding.max()


def evaluate(kernels: Sequence[Kernel], pooled: Tensor, labels: Tensor, m: int, side: int, rule: Rule) -> Statistics:
    """Return statistics that are exact, up to rounding, wherever they are needed for the comparison with the threshold.

    Only statistics that may be on the wrong side of the threshold are computed in float64.
    """
    if not can_screen(kernels, pooled, labels):
        return of_sums(exact_sums(kernels, pooled, labels, side), labels, m, pooled.dtype, rule)
    screened, error = screened_sums(kernels, pooled, labels, m, side)
    statistics = of_sums(screened, labels, m, pooled.dtype, rule)
    needed = _needed(statistics, error * slope(m, len(pooled) - m), rule).cpu()
    used = needed.any(1).nonzero()[:, 0]
    exact = exact_sums([kernels[i] for i in used], pooled, labels, side, needed[used])
    needed, used = needed.to(labels.device), used.to(labels.device)
    exact = exact._replace(real_pairs=torch.where(needed[used], exact.real_pairs, screened.real_pairs[used]))
    sums = GramSums(*(old.index_copy(0, used, new) for old, new in zip(screened, exact, strict=True)))
    found = of_sums(sums, labels, m, pooled.dtype, rule)
    # A screened sum over real pairs needs the screened sums of the rows: errors that they share cancel in MMD^2.
    return found._replace(values=torch.where(needed, found.values, statistics.values))


def of_sums(sums: GramSums, labels: Tensor, m: int, score_dtype: torch.dtype, rule: Rule) -> Statistics:
    """Return the statistics for the sums of each division, which has `m` real samples."""
    n = labels.shape[1] - m
    values, rounding = mmd2(sums, m, n, score_dtype)
    if rule.unit is None:
        return Statistics(values, rounding, torch.ones_like(rounding))
    # If all kernel values are nearly equal, a deviation is rounding error, so the divisor is at least `rounding`.
    unit = torch.maximum(rule.unit(sums, m, n), rounding)
    unit = torch.where(unit == 0, 1, unit)
    return Statistics(values / unit, rounding / unit, unit)


def _needed(screened: Statistics, error: Tensor, rule: Rule) -> Tensor:
    """Return which statistics `(r, B + 1)` have to be exact, given bounds on the errors of MMD^2.

    These are the observed ones that matter, and those of other divisions that may be on either side of the threshold,
    unless the statistic of another kernel and the same division is certainly above it.
    """
    margin = error / screened.unit + ROUGH * screened.rounding
    least, most = screened.values - margin, screened.values + margin
    limit = threshold(screened, rule)
    if rule.is_largest:
        needed = ~((least >= limit).any(0) | (most < limit))
        needed[:, 0] = ~(most[:, 0] < least[:, 0].amax())
        return needed
    open_divisions = ~((rule.combined(least) >= limit) | (rule.combined(most) < limit))
    open_divisions[0] = True
    return open_divisions.expand_as(least).clone()


def mmd2(sums: GramSums, m: int, n: int, score_dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return MMD^2 `(r, B + 1)` for each kernel and division, and an estimate `(r, 1)` of its rounding error.

    The sums of kernel values of the three groups are `w K w`, `w K 1 - w K w` and `1 K 1 - 2 w K 1 + w K w`.
    """
    real_pairs, pairs_with_real, all_pairs = sums.real_pairs, sums.pairs_with_real, sums.all_pairs.unsqueeze(1)
    real = real_pairs / (m * (m - 1))
    cross = (pairs_with_real - real_pairs) / (m * n)
    fake = (all_pairs - 2 * pairs_with_real + real_pairs) / (n * (n - 1))
    largest_real, largest_cross, largest_fake = (mean.abs().amax(1, keepdim=True) for mean in (real, cross, fake))
    scale = largest_real + 2 * largest_cross + largest_fake
    return real - 2 * cross + fake, scale * _relative_rounding(score_dtype, real_pairs.dtype, m + n)


def slope(m: int, n: int) -> float:
    """Return the derivative of MMD^2 with respect to the sum over the real pairs, given the sums of all rows."""
    size = m + n
    return (size - 1) * (size - 2) / (m * (m - 1) * n * (n - 1))


def deviation(sums: GramSums, m: int, n: int) -> Tensor:
    r"""Return the standard deviation `(r, 1)` of MMD^2 for each kernel, over all divisions and not only those drawn.

    The U-centred Gram matrix :math:`\tilde K` has a zero diagonal, and each of its rows sums to zero. The standard
    deviation is the root of

    .. math:: \frac{2 (N - 1) (N - 2)}{N (N - 3)\, m (m - 1)\, n (n - 1)} \sum_{i \ne j} \tilde K_{ij}^2

    since MMD^2 is `(N - 1) (N - 2) / (m (m - 1) n (n - 1))` times the sum of :math:`\tilde K` over the real pairs.
    """
    size = m + n
    centred = sums.squares - 2 / (size - 2) * sums.row_squares + sums.all_pairs**2 / ((size - 1) * (size - 2))
    factor = 2 * (size - 1) * (size - 2) / (size * (size - 3) * m * (m - 1) * n * (n - 1))
    return (factor * centred.clamp_min(0)).sqrt().unsqueeze(1)


def _root_of_squares(sums: GramSums, m: int, n: int) -> Tensor:
    r"""Return :math:`\sqrt{\sum_{i \ne j} K_{ij}^2} / (l (l - 1))` `(r, 1)` for the smaller number of samples `l`."""
    least = min(m, n)
    return (sums.squares.sqrt() / (least * (least - 1))).unsqueeze(1)


def _log_mean_exp(values: Tensor) -> Tensor:
    return values.logsumexp(0) - math.log(len(values))


def _largest(values: Tensor) -> Tensor:
    return values.amax(0)


PLAIN = Rule(None, _largest, is_largest=True)
"""MMD^2 with one kernel."""

MAX = Rule(deviation, _largest, is_largest=True)
"""The largest MMD^2 in units of standard deviations."""

FUSE = Rule(_root_of_squares, _log_mean_exp, is_largest=False)
"""The fused statistic of Biggs et al. (2023)."""


def _relative_rounding(score_dtype: torch.dtype, sum_dtype: torch.dtype, size: int) -> float:
    # The errors of kernel values are independent, so the error of a mean over pairs falls with the number of samples.
    return 64 * max(torch.finfo(sum_dtype).eps, torch.finfo(score_dtype).eps / size)
