"""The loss of drifting models, with its scales and floors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from torch_mmd_losses import checks, usage_warnings
from torch_mmd_losses.distances import widened
from torch_mmd_losses.fields import arguments, direct
from torch_mmd_losses.fields.loss_by_logarithms import LossByLogarithms
from torch_mmd_losses.fields.loss_by_values import LossByValues
from torch_mmd_losses.fields.loss_options import Fields, LossOptions
from torch_mmd_losses.fields.sample_sets import SampleSet, sets_of_samples
from torch_mmd_losses.precision import full_precision

SMALLEST_SCALE = 1e-3
"""Smallest mean distance, and smallest unit of the samples."""

SMALLEST_MEAN_SQUARE = 1e-8
"""Smallest mean square of a drift that is normalised."""


def drift_loss(
    fake: Tensor,
    real: Tensor,
    *,
    negatives: Tensor | None = None,
    temperatures: Sequence[float] = (0.02, 0.05, 0.2),
    real_weights: Tensor | None = None,
    negative_weights: Tensor | None = None,
    exclude_self: bool | None = None,
    per_group: bool = False,
    distance_floor: float = 1e-4,
    affinity_floor: float = 1e-6,
) -> Tensor:
    r"""Return the loss of drifting models, whose gradient moves fake samples along a sum of normalised drifts.

    .. math:: L = \frac{1}{n d} \sum_i \Bigl\lVert \frac{x_i}{s} - \mathrm{sg}\Bigl(\frac{x_i}{s}
        + \sum_\tau \frac{V_\tau(x_i)}{\sqrt{\mathrm{mean}\, V_\tau^2}}\Bigr) \Bigr\rVert^2

    for the drifts :math:`V_\tau` of :func:`drift` with `normalise="rows_and_columns"` and the kernel
    :math:`\exp(-r / (\tau \bar{r}))` of the distance :math:`r`. :math:`\bar{r}` is the mean distance of fake samples
    from all real samples and negatives, weighted by their weights, and :math:`s = \bar{r} / \sqrt{d}`. `sg` stops the
    gradient: only the first :math:`x_i` has one.

    **The loss does not measure progress.** Each drift is divided by its own size. With one temperature, the mean loss
    of the groups is therefore 1 for all samples; with several temperatures it is at most their number squared. To see
    progress, log :func:`mmd2`, or the mean square of :func:`drift`, with a fixed kernel.

    The mean distance and the mean squares are means over all groups of the call, as in the paper, where groups are
    classes and locations of one feature map. So groups influence one another, unless `per_group` is true.

    All constants are those of the authors' code: :math:`\bar{r}` and :math:`s` are at least 1e-3, mean squares at least
    1e-8, and see `distance_floor` and `affinity_floor`. The code leaves out the pair of a sample and itself by adding
    100 to its relative distance. Here the pair is left out exactly, which gives the same result for temperatures up to
    1. As in the code, and unlike in :func:`drift`, the sums that normalise affinities have no weights.

    Memory grows with the numbers of samples, not with the number of pairs, except under `torch.compile` and in
    transforms of `torch.func`. On a CPU, float32 samples are evaluated in float32 where sums of affinities are precise
    enough, and otherwise in float64, by logarithms if affinities would underflow. Other devices always use logarithms.

    Args:
        fake: samples `(*G, n, d)` in any floating-point dtype, with or without dimensions of groups `*G`. In the
            authors' code, these are `gen` of shape `(B, C_g, S)`.
        real: samples `(*G, m, d)`, of the same groups, dimension, dtype and device (`fixed_pos`).
        negatives: samples `(*G, l, d)`. None stands for the fake samples. For the unconditional samples of guidance
            (`fixed_neg`), pass `torch.cat([fake, unconditional], -2)` with `exclude_self=True`, and weights of
            `(alpha - 1) * (n - 1) / number_of_unconditional` for the strength `alpha`.
        temperatures: the temperatures :math:`\tau`, relative to the mean distance.
        real_weights: weights `(*G, m)`, zero or above. None stands for ones.
        negative_weights: weights `(*G, l)` of the negatives, likewise.
        exclude_self: leave out the pairs of a fake sample and the negative with its index. None means True if there are
            no `negatives`, and False otherwise.
        per_group: take the means over each group separately.
        distance_floor: smallest distance, in the units of the samples.
        affinity_floor: smallest product of the softmax over rows and the one over columns. The affinity of every pair,
            however far apart, is at least the root of this floor, 1e-3.

    Returns:
        One loss `(*G,)` for each group, float64 for float64 samples and float32 for all others. Differentiable once,
        with respect to `fake` alone.

    Warns:
        UsageWarning: if `negatives` are given without `exclude_self`: they replace the fake samples as negatives, so
            nothing keeps the fake samples apart.

    Raises:
        TypeError: if samples or weights are not tensors, or an option is of the wrong type.
        ValueError: if samples are empty or not floating-point, or differ in groups, dimension, dtype or device; if
            weights have another shape or are below zero; if there are fewer than two fake samples without negatives; if
            temperatures are not positive, or floors are below zero.

    Example:
        >>> fake, real = torch.randn(4, 16, 8, requires_grad=True), torch.randn(4, 32, 8)
        >>> loss = drift_loss(fake, real)  # of each group
        >>> loss.shape
        torch.Size([4])
        >>> loss.mean().backward()

    References:
        Deng et al. (2026), Algorithm 2, Sections A.6 and A.7, and the function `drift_loss` of their code.
    """
    if negatives is not None and exclude_self is None:
        usage_warnings.warn(
            "negatives alone",
            "drift_loss: expected negatives that contain the fake samples, as in the authors' code, got negatives that "
            "replace them, so that nothing keeps fake samples apart. Pass negatives=torch.cat([fake, negatives], "
            "-2) with exclude_self=True, or exclude_self=False if you mean it",
        )
    options = LossOptions(
        checks.hyperparameters("temperatures", temperatures),
        arguments.floor("distance_floor", distance_floor),
        math.sqrt(arguments.floor("affinity_floor", affinity_floor)),
        checks.flag("per_group", per_group),
    )
    x, sets, groups = sets_of_samples(fake, real, negatives, real_weights, negative_weights, exclude_self, signed=False)
    constant = x.detach()
    with torch.no_grad(), full_precision(x.device):
        movement, unit = _normalised_drift(constant, [each.detached(x, constant) for each in sets], options)
    residual = (x - constant) / unit.to(x.dtype) - movement.to(x.dtype)
    return residual.square().mean((-2, -1)).reshape(groups)


def _normalised_drift(x: Tensor, sets: Sequence[SampleSet], options: LossOptions) -> tuple[Tensor, Tensor]:
    """Return the sum of the normalised drifts `(g, n, d)`, and the unit of the samples, `(g, 1, 1)` or one number."""
    if direct.is_possible(x, *[tensor for each in sets for tensor in each.tensors()]):
        call = LossByValues(x, sets, options)
        scale = _scale(call.sums_of_distances(), x, sets, options)
        fields = call.fields(scale.clamp_min(SMALLEST_SCALE))
        if fields is not None:
            return _combined(fields, scale, x, options)
    wide, _ = widened(x, x)
    precise = LossByLogarithms(wide, [each.widened(x, wide) for each in sets], options)
    scale = _scale(precise.sums_of_distances(), x, sets, options)
    return _combined(precise.fields(scale.clamp_min(SMALLEST_SCALE)), scale, x, options)


def _scale(distances: Tensor, x: Tensor, sets: Sequence[SampleSet], options: LossOptions) -> Tensor:
    """Return the mean distance, given the sums of distances of each group `(g,)`."""
    weights = torch.cat([each.weights for each in sets], -1).to(distances.dtype)
    return _mean(distances / x.shape[1], options) / _mean(weights.sum(-1), options)


def _combined(fields: Sequence[Fields], scale: Tensor, x: Tensor, options: LossOptions) -> tuple[Tensor, Tensor]:
    unit = (scale / math.sqrt(x.shape[2])).clamp_min(SMALLEST_SCALE)
    parts = []
    for (positive, towards), (negative, away) in fields:
        factors = [(mass.unsqueeze(-1) / unit).to(towards.dtype) for mass in (negative, positive)]
        drift = towards.mul_(factors[0]).sub_(away.mul_(factors[1]))
        mean_square = _mean(torch.linalg.vector_norm(drift, dim=-1).square().to(scale.dtype).mean(-1), options)
        size = (mean_square / x.shape[2]).clamp_min(SMALLEST_MEAN_SQUARE).sqrt()
        parts.append(drift.mul_((1 / size).to(drift.dtype)))
    movement = parts[0]
    for part in parts[1:]:
        movement.add_(part)
    return movement, unit


def _mean(of_groups: Tensor, options: LossOptions) -> Tensor:
    """Return the mean `(1, 1, 1)` of numbers of groups, or the numbers themselves `(g, 1, 1)`."""
    return (of_groups if options.per_group else of_groups.mean()).view(-1, 1, 1)
