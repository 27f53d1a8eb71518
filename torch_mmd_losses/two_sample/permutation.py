"""Permutation two-sample test; all permutations are evaluated in a few matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.kernels.base import Kernel, check_kernel
from torch_mmd_losses.kernels.radial import RBFKernel
from torch_mmd_losses.pairs.tiles import tile_side
from torch_mmd_losses.precision import full_precision
from torch_mmd_losses.results import TwoSampleTest
from torch_mmd_losses.two_sample.division_sums import GramSums, exact_sums
from torch_mmd_losses.two_sample.screening import can_screen, screened_sums

MEDIAN_OF = 1000
"""Number of samples whose pairwise distances, half a million, the median is taken over."""

BANDWIDTHS = (0.125, 0.25, 0.5, 1.0, 2.0)
"""Bandwidths of the default kernels, in units of the median distance over the root of two."""

AT_ONCE = 2**22
"""Number of random numbers that are drawn at once for the permutations: 32 MB."""

ROUGH = 256.0
"""Bound on the rounding errors of screened kernel values, as a multiple of the estimate for exact ones.

It matters only if nearly all kernel values are equal, so that differences of MMD^2 are rounding errors.
"""


@torch.no_grad()
def mmd_test(
    real: Tensor,
    fake: Tensor,
    kernel: Kernel | None = None,
    *,
    permutations: int = 999,
    generator: torch.Generator | None = None,
    tile_size: int | None = None,
) -> TwoSampleTest:
    r"""Test whether two samples come from the same distribution, by permutations.

    With a kernel, the statistic is the value of :func:`mmd2` with `estimator="unbiased"`. By default, since the scale
    of a difference is not known, the statistic is the maximum over five Gaussian kernels. The value for each kernel is
    divided by its standard deviation :math:`\sigma_k` over all divisions of the pooled samples into :math:`m` and
    :math:`n` samples. The mean over these divisions is zero.

    .. math:: \max_k \frac{\widehat{\mathrm{MMD}}{}_k^2}{\sigma_k},
        \quad k(a, b) = \exp(-\lVert a - b \rVert^2 / c_k^2), \quad c_k = c / 8, c / 4, c / 2, c, 2 c.

    :math:`c` is the median distance between all samples, real and fake together, or between 1000 random samples if
    there are more. Distances of zero do not count. :math:`\sigma_k` is exact: it is computed from the Gram matrix, not
    estimated from the random divisions.

    Under the null hypothesis, all samples are drawn independently from the same distribution, so it does not matter
    which samples are called real. The statistic is therefore compared with the statistics of :math:`B` random
    divisions, which share :math:`c` and :math:`\sigma_k`:

    .. math:: p = \frac{1 + \#\{b : statistic_b \ge statistic\}}{B + 1}.

    The test that rejects for :math:`p \le \alpha` rejects a true null hypothesis with a probability of at most
    :math:`\alpha`. This holds for any number of samples, and for any kernel that was chosen without looking at which
    samples are real. For a continuous distribution and an integer :math:`\alpha (B + 1)`, the probability is exactly
    :math:`\alpha`, up to divisions that are drawn twice. Statistics that are equal up to rounding count as equal. The
    smallest p-value is :math:`1 / (B + 1)`.

    If a kernel is trained to tell real from fake samples, split the samples: train on one part and test on the other.

    Time is :math:`O(N^2 (d + B))` and memory is :math:`O(N (d + B))` for :math:`N = m + n`. All permutations share the
    kernel values of a tile, and one matrix product sums these values for all permutations. The five kernels share the
    distances. For many permutations, these products are computed in 8-bit integers or bfloat16, or in float32 where
    these are not faster. Statistics that are so close to the observed one that errors could matter are then computed
    again in float64. So the p-value is that of a test in float64. This takes a second evaluation of the kernels and, on
    a GPU, synchronisations.

    Args:
        real: scores `(m, d)` in any floating-point dtype; `(m,)` and `(m, ...)` are flattened from dim 1.
        fake: scores `(n, d)`, likewise.
        kernel: any kernel. The bounds of an :class:`RBFBKernel` are ignored. None stands for the five Gaussian kernels.
        permutations: number of permutations, :math:`B`. 999 are enough for levels of 0.05 and 0.01.
        generator: source of the random numbers. None is PyTorch's default generator for the device of the scores; a
            generator on the CPU gives the same numbers on every device.
        tile_size: side length of the tiles used for large batches, >= 1. None picks a default for the device; smaller
            tiles need less memory.

    Returns:
        Statistic and p-value, scalars without a gradient. The statistic is float64 for float64 scores and float32 for
        all others; the p-value is float64 (float32 on MPS).

    Raises:
        TypeError: if scores are not tensors, `kernel` is not a :class:`Kernel`, `permutations` or `tile_size` is not an
            integer, or `generator` is not a :class:`torch.Generator`.
        ValueError: if scores are empty, not floating-point, or fewer than two; if they differ in dimension, dtype or
            device; if they are on the meta device and `kernel` is None; if `permutations` or `tile_size` is below 1.

    Example:
        >>> real, fake = torch.randn(100, 2), torch.randn(80, 2) + 0.7
        >>> mmd_test(real, fake, generator=torch.Generator().manual_seed(0)).p_value
        tensor(0.0010, dtype=torch.float64)

    References:
        Gretton et al. (2012), Section 5; Phipson and Smyth (2010) for the p-value; Schrab et al. (2023) and Biggs et
        al. (2023) for tests with several kernels at once; Székely and Rizzo (2014) for :math:`\tilde K`, the centred
        Gram matrix that :math:`\sigma_k` comes from (see the page on theory).
    """
    if kernel is not None:
        check_kernel(kernel)
    count = checks.whole_number("permutations", permutations, least=1)
    checks.random_generator(generator)
    tile_size = checks.tile_size(tile_size)
    real, fake = checks.same_space("real", real, "fake", fake)
    m, n = real.shape[0], fake.shape[0]
    checks.enough_samples({"real": real, "fake": fake}, least=2)
    if kernel is None:
        checks.with_values({"real": real, "fake": fake}, "from which the bandwidths are computed if kernel is None")
    device = real.device
    # In a random order, neither rounding nor the samples for the median depend on which samples are real.
    order = torch.rand(
        m + n, dtype=torch.float64, generator=generator, device=_random_device(generator, device)
    ).argsort()
    pooled = torch.cat([real, fake])[order.to(device)]
    if kernel is None:
        # Scaling by a power of two is exact. Afterwards no distance is too large or too small to be squared.
        pooled = torch.ldexp(pooled, -torch.frexp(pooled.abs().amax()).exponent)
    labels = torch.cat([(order < m).unsqueeze(0), _divisions(m, n, count, generator, device)]).to(device)
    with full_precision(device):
        kernels = _gaussians(_bandwidth(pooled[:MEDIAN_OF])) if kernel is None else [kernel]
        statistics = _statistics(kernels, pooled, labels, m, tile_side(tile_size, device), standardised=kernel is None)
    largest = statistics.values.amax(0)
    as_large = largest >= statistics.threshold()
    # No statistic compares as >= NaN, so without this check NaN in the samples would give the smallest p-value.
    p_value = torch.where(largest.isfinite().all(), as_large.to(largest.dtype).mean(), torch.nan)
    return TwoSampleTest(largest[0].to(real.dtype), p_value)


class _Statistics(NamedTuple):
    """The statistics of `r` kernels for all divisions; the largest of a division is the statistic of the test."""

    values: Tensor
    """Statistics `(r, B + 1)`, MMD^2 over `unit`; the first division is the observed one."""
    rounding: Tensor
    """Estimates of their rounding errors, `(r, 1)`."""
    unit: Tensor
    """The standard deviations of MMD^2, or ones, `(r, 1)`."""

    def threshold(self) -> Tensor:
        """Return the number from which the statistic of a division counts as equal to the observed one or larger."""
        return self.values[:, 0].amax() - self.rounding.max()


def _statistics(
    kernels: Sequence[Kernel], pooled: Tensor, labels: Tensor, m: int, side: int, *, standardised: bool
) -> _Statistics:
    """Return statistics that are exact, up to rounding, wherever they are needed for the comparison with the threshold.

    Only statistics that may be on the wrong side of the threshold are computed in float64.
    """
    if not can_screen(kernels, pooled, labels):
        return _of_sums(exact_sums(kernels, pooled, labels, side), m, pooled.dtype, standardised=standardised)
    screened, error = screened_sums(kernels, pooled, labels, m, side)
    statistics = _of_sums(screened, m, pooled.dtype, standardised=standardised)
    needed = _needed(statistics, error * _slope(m, len(pooled) - m)).cpu()
    used = needed.any(1).nonzero()[:, 0]
    exact = exact_sums([kernels[i] for i in used], pooled, labels, side, needed[used])
    needed, used = needed.to(labels.device), used.to(labels.device)
    exact = exact._replace(real_pairs=torch.where(needed[used], exact.real_pairs, screened.real_pairs[used]))
    sums = GramSums(*(old.index_copy(0, used, new) for old, new in zip(screened, exact, strict=True)))
    found = _of_sums(sums, m, pooled.dtype, standardised=standardised)
    # A screened sum over real pairs needs the screened sums of the rows: errors that they share cancel in MMD^2.
    return found._replace(values=torch.where(needed, found.values, statistics.values))


def _of_sums(sums: GramSums, m: int, score_dtype: torch.dtype, *, standardised: bool) -> _Statistics:
    values, rounding = _mmd2(sums, m, score_dtype)
    if not standardised:
        return _Statistics(values, rounding, torch.ones_like(rounding))
    # If all kernel values are nearly equal, the deviation is rounding error, so the divisor is at least `rounding`.
    unit = torch.maximum(_deviation(sums, m), rounding)
    return _Statistics(values / unit, rounding / unit, unit)


def _needed(screened: _Statistics, error: Tensor) -> Tensor:
    """Return which statistics `(r, B + 1)` have to be exact, given bounds on the errors of MMD^2.

    These are the observed ones that may be the largest, and those of other divisions that may be on either side of the
    threshold, unless the statistic of another kernel and the same division is certainly above it.
    """
    margin = error / screened.unit + ROUGH * screened.rounding
    least, most = screened.values - margin, screened.values + margin
    threshold = screened.threshold()
    above, below = (least >= threshold).any(0), most < threshold
    needed = ~(above | below)
    needed[:, 0] = ~(most[:, 0] < least[:, 0].amax())
    return needed


def _random_device(generator: torch.Generator | None, device: torch.device) -> torch.device:
    if generator is not None:
        return generator.device
    return torch.device("cpu") if device.type == "mps" else device  # MPS has no float64


def _divisions(m: int, n: int, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Return random divisions as masks `(count, m + n)` of the samples that are called real, `m` in each division."""
    masks = torch.empty(count, m + n, dtype=torch.bool, device=_random_device(generator, device))
    for piece in masks.split(max(1, AT_ONCE // (m + n))):
        keys = torch.rand(piece.shape, dtype=torch.float64, generator=generator, device=masks.device)
        piece.copy_(keys <= _mth_smallest(keys, m))
    return masks


def _mth_smallest(keys: Tensor, m: int) -> Tensor:
    """Return the `m`-th smallest number of each row `(..., N)` of uniform random numbers, `(..., 1)`."""
    if not keys.is_cpu or type(keys) is not Tensor:  # fake tensors have no numbers
        return keys.kthvalue(m, dim=1, keepdim=True).values
    # A search among the numbers near its expectation takes a fifth of the time.
    size = keys.shape[1]
    expected = m / (size + 1)
    width = 8 * (expected * (1 - expected) / (size + 2)) ** 0.5
    found = torch.empty(len(keys), 1, dtype=keys.dtype)
    for i, row in enumerate(keys.numpy()):
        below = row < expected - width
        near = row[(row <= expected + width) & ~below]
        rank = m - 1 - np.count_nonzero(below)
        found[i] = np.partition(near, rank)[rank] if 0 <= rank < len(near) else np.partition(row, m - 1)[m - 1]
    return found


def _bandwidth(pooled: Tensor) -> float:
    """Return the median distance over the root of two, or 1 if all samples are equal and any bandwidth will do."""
    distances = torch.pdist(pooled)
    apart = distances[(distances > 0) & distances.isfinite()]
    return float(apart.median()) / 2**0.5 if apart.numel() else 1.0


def _gaussians(sigma: float) -> list[Kernel]:
    return [RBFKernel(factor * sigma) for factor in BANDWIDTHS]


def _mmd2(sums: GramSums, m: int, score_dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return MMD^2 `(r, B + 1)` for each kernel and division, and an estimate `(r, 1)` of its rounding error.

    The sums of kernel values of the three groups are `w K w`, `w K 1 - w K w` and `1 K 1 - 2 w K 1 + w K w`.
    """
    real_pairs, pairs_with_real, rows, _ = sums
    size = rows.shape[1]
    n = size - m
    all_pairs = rows.sum(1, keepdim=True)
    real = real_pairs / (m * (m - 1))
    cross = (pairs_with_real - real_pairs) / (m * n)
    fake = (all_pairs - 2 * pairs_with_real + real_pairs) / (n * (n - 1))
    largest_real, largest_cross, largest_fake = (mean.abs().amax(1, keepdim=True) for mean in (real, cross, fake))
    scale = largest_real + 2 * largest_cross + largest_fake
    return real - 2 * cross + fake, scale * _relative_rounding(score_dtype, rows.dtype, size)


def _slope(m: int, n: int) -> float:
    """Return the derivative of MMD^2 with respect to the sum over the real pairs, given the sums of all rows."""
    size = m + n
    return (size - 1) * (size - 2) / (m * (m - 1) * n * (n - 1))


def _deviation(sums: GramSums, m: int) -> Tensor:
    r"""Return the standard deviation `(r, 1)` of MMD^2 for each kernel, over all divisions and not only those drawn.

    The U-centred Gram matrix :math:`\tilde K` has a zero diagonal, and each of its rows sums to zero. The standard
    deviation is the root of

    .. math:: \frac{2 (N - 1) (N - 2)}{N (N - 3)\, m (m - 1)\, n (n - 1)} \sum_{i \ne j} \tilde K_{ij}^2

    since MMD^2 is `(N - 1) (N - 2) / (m (m - 1) n (n - 1))` times the sum of :math:`\tilde K` over the real pairs.
    """
    size = sums.rows.shape[1]
    n = size - m
    all_pairs = sums.rows.sum(1)
    centred = sums.squares - 2 / (size - 2) * sums.rows.square().sum(1) + all_pairs**2 / ((size - 1) * (size - 2))
    factor = 2 * (size - 1) * (size - 2) / (size * (size - 3) * m * (m - 1) * n * (n - 1))
    return (factor * centred.clamp_min(0)).sqrt().unsqueeze(1)


def _relative_rounding(score_dtype: torch.dtype, sum_dtype: torch.dtype, size: int) -> float:
    # The errors of kernel values are independent, so the error of a mean over pairs falls with the number of samples.
    return 64 * max(torch.finfo(sum_dtype).eps, torch.finfo(score_dtype).eps / size)
