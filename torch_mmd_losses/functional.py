"""MMD^2 and the losses of MMD GANs as pure functions of the scores.

Every quantity is a weighted sum of three mean kernel values: of pairs of real scores, of pairs of fake scores and of
pairs of both. :class:`Means` holds the three, and the functions below only weigh them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses import _checks, _fused
from torch_mmd_losses._kernel import Kernel
from torch_mmd_losses._leaf import Leaf
from torch_mmd_losses._pairs import Pairs, Sample
from torch_mmd_losses._types import Bounds, Estimator, Row, Weights


class AllPairs(NamedTuple):
    """The pairs that an estimator averages over, in its three groups."""

    real: Pairs
    cross: Pairs
    fake: Pairs


MMD2 = Weights(real=1.0, cross=-2.0, fake=1.0)
"""`E k(x, x') - 2 E k(x, y) + E k(y, y')`, Eq. 1 and 2 of Wang et al."""


GENERATOR = Row(MMD2, "none")
"""The generator's loss: MMD^2 with the kernel as it is, without bounds."""


def discriminator_weights(lambda_: float) -> Weights:
    """Return the weights of `L_{D,lambda}`, Eq. 5 of Wang et al."""
    return Weights(real=lambda_, cross=1.0 - lambda_, fake=-1.0)


def discriminator_bounds(lambda_: float) -> Bounds:
    """Return which of the bounds of RBF-B the discriminator's loss uses: Eq. 6 or Eq. 7 of Wang et al."""
    return "attractive" if lambda_ < 0 else "repulsive"


def all_pairs(real: Tensor, fake: Tensor, estimator: Estimator) -> AllPairs:
    """Return the pairs of two score matrices `(m, d)` and `(n, d)` that the estimator averages over."""
    within = estimator != "biased"
    x, y = Sample(real), Sample(fake)
    return AllPairs(
        real=Pairs(x, x, "real", distinct=within),
        cross=Pairs(x, y, "cross", distinct=estimator == "u_statistic"),
        fake=Pairs(y, y, "fake", distinct=within),
    )


def losses(kernel: Kernel, real: Tensor, fake: Tensor, estimator: Estimator, rows: Sequence[Row]) -> tuple[Tensor, ...]:
    """Return the loss of each row, scalars in the dtype of the scores, from one set of distances.

    Kernels of the distance go through a fused pass where nothing but reverse-mode autograd looks on; all others, and
    everything under `torch.compile` and function transforms, are left to autograd.
    """
    leaves = kernel._leaves()
    fused = [leaf for leaf in leaves if leaf.kernel._radial]
    if not _fused.applies(fused, real, fake):
        fused = []
    rest = [leaf for leaf in leaves if leaf not in fused]
    parts = []
    if fused:
        by_autograd = partial(_by_autograd, fused, estimator=estimator, rows=rows)
        parts.append(_fused.losses(_fused.Plan(tuple(fused), tuple(rows), estimator, by_autograd), real, fake))
    if rest:
        parts.append(_by_autograd(rest, real, fake, estimator, rows))
    return tuple(sum(values[1:], start=values[0]).to(real.dtype) for values in zip(*parts, strict=True))


def _by_autograd(
    leaves: Sequence[Leaf], real: Tensor, fake: Tensor, estimator: Estimator, rows: Sequence[Row]
) -> tuple[Tensor, ...]:
    pairs = all_pairs(real, fake, estimator)
    return tuple(
        torch.stack(
            [leaf.factor * weighted_means(leaf.kernel, pairs, row.weights, row.bounds) for leaf in leaves]
        ).sum()
        for row in rows
    )


def weighted_means(kernel: Kernel, pairs: AllPairs, weights: Weights, bounds: Bounds = "none") -> Tensor:
    """Return the weighted sum of the three mean kernel values, a scalar in :func:`total_dtype`."""
    terms = [weight * kernel._mean(group, bounds) for group, weight in zip(pairs, weights, strict=True) if weight]
    return torch.stack(terms).sum()


def mmd2(real: Tensor, fake: Tensor, kernel: Kernel, *, estimator: Estimator = "unbiased") -> Tensor:
    r"""Estimate the squared maximum mean discrepancy between real and fake scores.

    .. math:: \mathrm{MMD}^2 = E\,k(x, x') - 2 E\,k(x, y) + E\,k(y, y')

    for real scores :math:`x, x'` and fake scores :math:`y, y'`. The estimators differ in the pairs they average over:

    ===============  ==========================  ======================  =========================================
    estimator        within a group              cross                   notes
    ===============  ==========================  ======================  =========================================
    `"unbiased"`     :math:`i \ne j`             all :math:`m n`         any `m, n >= 2`; may be negative
    `"u_statistic"`  :math:`i \ne j`             :math:`i \ne j`         `m = n >= 2`; Eq. S2 of Wang et al.
    `"biased"`       all, also :math:`i = j`     all :math:`m n`         never negative for a positive kernel
    ===============  ==========================  ======================  =========================================

    The first two are unbiased, so near equality of the distributions they fall below zero about as often as above;
    the value is never clamped, because its gradient is right there too.

    Args:
        real: scores `(m, d)` in any floating-point dtype; `(m,)` and `(m, ...)` are flattened from dim 1.
        fake: scores `(n, d)`, likewise.
        kernel: the kernel; a bounded one is taken without its bounds.
        estimator: see the table.

    Returns:
        A scalar, float64 for float64 scores and float32 for all others (half precision and autocast compute in
        float32 too). Differentiable twice with respect to both arguments.

    Raises:
        TypeError: if scores are no tensors or `kernel` is no :class:`Kernel`.
        ValueError: if scores are empty, not floating-point, too few for the estimator or, for `"u_statistic"`, not
            equally many; if they differ in dimension, dtype or device; if the estimator is unknown.

    Example:
        >>> real, fake = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 2.0, 3.0])
        >>> mmd2(real=real, fake=fake, kernel=RBFKernel(sigma=1.0))
        tensor(-0.1473)
        >>> mmd2(real=real, fake=fake, kernel=RBFKernel(sigma=1.0), estimator="biased")
        tensor(0.2198)

    References:
        Gretton et al. (2012), Lemma 6; Wang et al. (2019), Eq. 1 and S2.
    """
    check_kernel(kernel)
    real, fake = _checks.same_space("real", real, "fake", fake)
    _checks.sample_sizes(real, fake, estimator)
    with _checks.full_precision(real.device):
        return losses(kernel, real, fake, estimator, [GENERATOR])[0]


def check_kernel(kernel: object) -> None:
    """Raise if `kernel` is no kernel."""
    if not isinstance(kernel, Kernel):
        raise TypeError(f"kernel: expected a Kernel such as RBFKernel(sigma=1.0), got {kernel!r}")
