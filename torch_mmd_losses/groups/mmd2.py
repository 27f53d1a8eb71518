"""MMD^2 of many groups in one call."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torch_mmd_losses import checks, usage_warnings
from torch_mmd_losses.groups.call import Tensors
from torch_mmd_losses.groups.values import group_values
from torch_mmd_losses.groups.weights import is_known_to_host, with_checked_weights
from torch_mmd_losses.kernels.base import Kernel, check_kernel
from torch_mmd_losses.kernels.summands import by_kind
from torch_mmd_losses.pairs.blind_kernels import warn_of_blind_groups
from torch_mmd_losses.precision import full_precision
from torch_mmd_losses.types import Estimator


def grouped_mmd2(
    real: Tensor,
    fake: Tensor,
    kernel: Kernel,
    *,
    scale: Tensor | None = None,
    estimator: Estimator = "biased",
    real_weights: Tensor | None = None,
    fake_weights: Tensor | None = None,
) -> Tensor:
    r"""Estimate the squared maximum mean discrepancy of many groups of samples, each group by itself.

    For each group :math:`g` with real scores :math:`x_i`, fake scores :math:`y_i` and scale :math:`s_g`,

    .. math::

        \mathrm{MMD}_g^2 = \sum_{i, j} w_i w_j\, k(x_i, x_j) - 2 \sum_{i, j} w_i u_j\, k(x_i, y_j)
            + \sum_{i, j} u_i u_j\, k(y_i, y_j), \qquad k(a, b) = f(\lVert a - b \rVert^2 / s_g^2),

    where the weights :math:`w_i` and :math:`u_i` are those given, divided by their sum, or :math:`1 / m` and
    :math:`1 / n`. The unbiased estimator leaves out the pairs of a sample with itself, and divides the sums within a
    sample by :math:`1 - \sum_i w_i^2` and :math:`1 - \sum_i u_i^2`. Without weights and scale, the values are those of
    :func:`mmd2` for each group.

    Groups do not influence one another: NaN, infinite or far-apart scores in one group do not change the values and
    gradients of the others. Only the last digits may depend on the number of groups, because groups are processed in
    chunks.

    Where scores nearly coincide, the slope of kernels with a root at zero, such as :class:`LaplaceKernel` and
    :class:`EnergyKernel`, is large. On a CPU, the distances of such pairs are therefore computed from the differences
    of the scores, so that gradients of float64 scores are right within 1e-8 of the sum of the norms of their terms,
    however near the scores are, and those of float32 scores within 1e-5. On other devices, under `torch.compile` and in
    function transforms, the error of a squared distance is about 1e-16 times the largest squared norm of the scores of
    the group around their centre, and in float32 about 1e-7 times this norm.

    Groups of up to 512 real and fake samples together are evaluated many at a time. Larger groups are evaluated tile by
    tile or strip by strip. A kernel of yours that defines `forward` is evaluated group by group, which is slower.
    Memory is a few times that of the scores. For kernels with trained parameters, under `torch.compile` and in function
    transforms, memory grows with the number of pairs.

    Args:
        real: scores `(*G, m, d)` in any floating-point dtype, with any number of dimensions for the groups. Flatten
            the values of a sample first, for example images `(G, m, c, h, w)` by `x.flatten(2)`.
        fake: scores `(*G, n, d)`, likewise.
        kernel: any kernel. The bounds of an :class:`RBFBKernel` are ignored.
        scale: numbers `(*G,)` from 1e-30 to 1e30 by which the distances in each group are divided. None leaves the
            distances as they are. The kernel must be a function of the distance.
        estimator: the pairs to average over, see :func:`mmd2`. With weights, `"u_statistic"` is not defined.
        real_weights: weights >= 0 of the real samples `(*G, m)`, of any sum; None gives all samples the same weight. A
            sample of weight zero is left out, but its scores must be finite.
        fake_weights: weights of the fake samples `(*G, n)`, likewise.

    Returns:
        Values `(*G,)`, float64 for float64 scores and float32 for all others. Half-precision scores are computed in
        float32, and so are float32 scores under autocast. Differentiable twice with respect to the scores, the scale
        and the weights.

    Raises:
        TypeError: if scores, scale or weights are not tensors, or `kernel` is not a :class:`Kernel`.
        ValueError: if scores are empty, not floating-point, or too few for the estimator; if real and fake scores
            differ in their groups, dimension, dtype or device; if the estimator is unknown, or not defined with
            weights; if the scale or the weights have another shape or device, or numbers that are out of range; if a
            scale comes with a kernel that is not a function of the distance. On devices other than a CPU, under
            `torch.compile` and in function transforms, numbers are not checked: a group whose scale is not positive, or
            whose weights are negative or all zero, has the value NaN.

    Warns:
        UsageWarning: if in all groups all kernel values are zero, or all are :math:`k(a, a)`, so that the values say
            nothing. Only the first call from each place in the code is examined, in up to 64 groups, and in each the
            first 256 real and fake samples.

    Example:
        >>> real, fake = torch.randn(256, 4, 3), torch.randn(256, 4, 3) + 1
        >>> scale = torch.full((256,), 2.0)
        >>> values = grouped_mmd2(real, fake, RBFKernel(sigma=1.0), scale=scale)
        >>> values.shape
        torch.Size([256])
        >>> kernel = RBFKernel(sigma=2.0)
        >>> alone = mmd2(real[0], fake[0], kernel, estimator="biased")
        >>> torch.allclose(values[0], alone)
        True

    References:
        Zhou et al. (2025), Inductive Moment Matching: groups of a few samples, each with its own scale and weight.
        Gretton et al. (2012), Lemma 6, for the estimators.
    """
    check_kernel(kernel)
    real, fake, groups = checks.same_groups("real", real, "fake", fake)
    checks.sample_sizes(real.shape[1], fake.shape[1], estimator)
    tensors = Tensors(real, fake, None if scale is None else _checked_scale(scale, kernel, groups, real.device))
    with full_precision(real.device):
        if real_weights is not None or fake_weights is not None:
            tensors = with_checked_weights(tensors, real_weights, fake_weights, groups, estimator)
        values = group_values(kernel, tensors, estimator).to(real.dtype).reshape(groups)
    if usage_warnings.is_first_call_from_place():
        warn_of_blind_groups("grouped_mmd2", kernel, tensors.real, tensors.fake, scale=tensors.scale)
    return values


def _checked_scale(scale: object, kernel: Kernel, groups: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the scale of each group as `(G,)`."""
    given = checks.plain(checks.dense("scale", scale, "numbers"))
    others = by_kind(kernel._summands())[1]
    if others:
        raise ValueError(
            f"scale: expected None for kernels that are not functions of the distance, such as "
            f"{type(others[0].kernel).__name__}, got a tensor of shape {tuple(given.shape)}"
        )
    if given.shape != groups:
        raise ValueError(
            f"scale: expected one number for each group, of shape {groups}, got {tuple(given.shape)}; scores are "
            "(*G, n, d), so flatten the values of a sample, x.flatten(2) for images (G, n, c, h, w)"
        )
    if given.device != device:
        raise ValueError(f"scale: expected numbers on the device of the scores, {device}, got {given.device}")
    flat = given.reshape(-1)
    if not is_known_to_host(given):
        return torch.where(flat > 0, flat, math.nan)
    lowest, highest = checks.RANGE
    wrong = ~((flat >= lowest) & (flat <= highest))
    if bool(wrong.any()):
        raise ValueError(
            f"scale: expected numbers from {lowest:g} to {highest:g}, got {float(flat[wrong][0].detach()):g}"
        )
    return flat
