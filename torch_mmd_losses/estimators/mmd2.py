"""MMD^2 and the losses of MMD GANs as pure functions of the scores.

Every quantity is a weighted sum of three mean kernel values: of pairs of real scores, of pairs of fake scores and of
pairs of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from torch_mmd_losses import autograd, checks
from torch_mmd_losses.distances import Pairs, Sample, total_dtype
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.summands import Leaf
from torch_mmd_losses.pairs import fused
from torch_mmd_losses.pairs.batch import LOCAL, Part, Scope
from torch_mmd_losses.pairs.plan import Plan
from torch_mmd_losses.types import Bounds, Estimator, Objective, Weights

MMD2 = Weights(real=1.0, cross=-2.0, fake=1.0)
"""`E k(x, x') - 2 E k(x, y) + E k(y, y')`, Eq. 1 and 2 of Wang et al."""


GENERATOR = Objective(MMD2, "none")
"""The generator's loss: MMD^2 with the kernel as it is, without bounds."""


def discriminator_weights(lambda_: float) -> Weights:
    """Return the weights of `L_{D,lambda}`, Eq. 5 of Wang et al."""
    return Weights(real=lambda_, cross=1.0 - lambda_, fake=-1.0)


def discriminator_bounds(lambda_: float) -> Bounds:
    """Return which of the bounds of RBF-B the discriminator's loss uses: Eq. 6 or Eq. 7 of Wang et al."""
    return "attractive" if lambda_ < 0 else "repulsive"


def losses(
    kernel: Kernel,
    real: Tensor,
    fake: Tensor,
    estimator: Estimator,
    *,
    objectives: Sequence[Objective],
    tile_size: int | None = None,
    scope: Scope = LOCAL,
) -> tuple[Tensor, ...]:
    """Return each loss, scalars in the dtype of the scores, from one set of distances.

    Kernels go through a fused pass where nothing but reverse-mode autograd with respect to the scores looks on. Kernels
    that are trained or have their means in closed form, and everything under `torch.compile` and function transforms,
    are left to autograd.
    """
    if not autograd.plain_autograd(real, fake):
        by_autograd = _by_autograd(kernel._leaves(), real, fake, objectives, estimator=estimator, scope=scope)
        return tuple(value.to(real.dtype) for value in by_autograd)
    radial: list[Leaf] = []
    general: list[Leaf] = []
    rest: list[Leaf] = []
    for leaf in kernel._leaves():
        if leaf.kernel._closed_form or leaf.kernel._trained(real):
            rest.append(leaf)
        else:
            (radial if leaf.kernel._radial else general).append(leaf)
    parts: list[tuple[Tensor, ...]] = []
    if radial or general:
        values = partial(_by_autograd, radial + general, estimator=estimator, scope=scope)
        parts.append(fused.losses(Plan(radial, general, objectives, estimator, scope, tile_size, values), real, fake))
    if rest:
        parts.append(_by_autograd(rest, real, fake, objectives, estimator=estimator, scope=scope))
    if not rest:
        return parts[0]
    return tuple(torch.stack(values).sum().to(real.dtype) for values in zip(*parts, strict=True))


def _by_autograd(
    leaves: Sequence[Leaf],
    real: Tensor,
    fake: Tensor,
    objectives: Sequence[Objective],
    *,
    estimator: Estimator,
    scope: Scope,
) -> tuple[Tensor, ...]:
    sets = scope.samples(scope.enter(real), scope.enter(fake))
    samples = [Sample(scores) for scores in sets]
    contributions: list[tuple[Part, list[Tensor]]] = []
    for part in scope.parts(sets, estimator):
        pairs = part.pairs_of(samples[part.a], samples[part.b])
        contributions.append((part, [_contribution(leaves, part, pairs, objective) for objective in objectives]))
    return scope.losses(contributions)


def _contribution(leaves: Sequence[Leaf], part: Part, pairs: Pairs, objective: Objective) -> Tensor:
    """Return what a part adds to a loss, a scalar in :func:`total_dtype`."""
    weight = getattr(objective.weights, part.group) / part.pairs
    if not weight:
        return pairs.a.scores.new_zeros((), dtype=total_dtype(pairs.a.scores.device))
    totals = [leaf.factor * leaf.kernel._total(pairs, objective.bounds) for leaf in leaves]
    return weight * torch.stack(totals).sum()


def mmd2(
    real: Tensor,
    fake: Tensor,
    kernel: Kernel,
    *,
    estimator: Estimator = "unbiased",
    tile_size: int | None = None,
) -> Tensor:
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
    the value is never clamped, because its gradient is right there too. Rounding can make a biased one negative by some
    units in the last place of the mean kernel values.

    Args:
        real: scores `(m, d)` in any floating-point dtype; `(m,)` and `(m, ...)` are flattened from dim 1.
        fake: scores `(n, d)`, likewise.
        kernel: the kernel; a bounded one is taken without its bounds.
        estimator: see the table.
        tile_size: rows and columns of the parts in which large samples are processed, >= 1. None chooses by the device;
            smaller ones need less memory.

    Returns:
        A scalar, float64 for float64 scores and float32 for all others (half precision and autocast compute in
        float32 too). Differentiable twice with respect to both arguments.

    Raises:
        TypeError: if scores are no tensors, `kernel` is no :class:`Kernel`, or `tile_size` no integer.
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
    real, fake = checks.same_space("real", real, "fake", fake)
    checks.sample_sizes(real.shape[0], fake.shape[0], estimator)
    tile_size = checks.tile_size(tile_size)
    with checks.full_precision(real.device):
        return losses(kernel, real, fake, estimator, objectives=[GENERATOR], tile_size=tile_size)[0]


def check_kernel(kernel: object) -> None:
    """Raise if `kernel` is no kernel."""
    if not isinstance(kernel, Kernel):
        raise TypeError(f"kernel: expected a Kernel such as RBFKernel(sigma=1.0), got {checks.described(kernel)}")
