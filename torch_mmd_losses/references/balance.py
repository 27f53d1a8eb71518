"""Losses and values of MMD^2 on scales that can be compared: relative to themselves or to held-out real samples."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_mmd_losses import checks, usage_warnings
from torch_mmd_losses.hand_written_gradients import eager_only
from torch_mmd_losses.pairs import reach
from torch_mmd_losses.references.reference import MMDReference

ROUNDING = 16
"""MMD^2 up to this number of units in the last place of the self term of a reference is only rounding."""


def relative(loss: Tensor, *, eps: float = 1e-7) -> Tensor:
    r"""Return a loss divided by its own value, so that losses of different features can be added.

    .. math:: \frac{L}{\lvert L \rvert + \epsilon} \quad \text{with a gradient of} \quad
        \frac{\nabla L}{\lvert L \rvert + \epsilon} \approx \nabla \log L

    MMD^2 on the features of one encoder may be a thousand times as large as on those of another. In a sum of relative
    losses, each loss is reduced in the same proportion. The value is about 1 for any loss, so log the loss itself
    instead.

    Use biased estimates of MMD^2. When the samples are good, an unbiased estimate is near zero with either sign, and
    its relative gradient is arbitrarily large. The self term of a reference is part of the value, so it must be
    computed from all rows or from random rows, as :class:`MMDReference` does. From the first rows of sorted samples it
    would be wrong.

    Args:
        loss: a scalar.
        eps: number above zero that bounds the division.

    Returns:
        A scalar, float64 for a float64 loss and float32 for all others. The division has no gradient.

    Raises:
        TypeError: if `loss` is not a tensor or `eps` is not a number.
        ValueError: if `loss` is not a floating-point scalar, or `eps` is not above zero.

    Warns:
        UsageWarning: if the loss is below `eps` or negative. Except on a CPU, only the first call from each place is
            examined.

    Example:
        >>> fake = torch.randn(100, 4).requires_grad_()
        >>> real = torch.randn(100, 4) + 1
        >>> narrow = mmd2(real, fake, RBFKernel(1.0), estimator="biased")
        >>> wide = mmd2(real, fake, RBFKernel(9.0), estimator="biased")
        >>> relative(narrow) + relative(wide)
        tensor(2.0000, grad_fn=<AddBackward0>)

    References:
        The code of Representation Distribution Matching (arXiv 2607.02375).
    """
    scalar = checks.plain(checks.dense("loss", loss, "losses"))
    if scalar.dim():
        raise ValueError(f"loss: expected a scalar, got {checks.described(scalar)}; call .mean() or .sum()")
    eps = checks.hyperparameter("eps", eps)
    if scalar.dtype != torch.float64:
        scalar = scalar.float()
    if usage_warnings.is_first_call_from_place() or scalar.is_cpu:
        _warn_of_small(scalar.detach(), eps)
    return scalar / (scalar.detach().abs() + eps)


def _warn_of_small(loss: Tensor, eps: float) -> None:
    if reach.is_readable(loss) and bool(loss < eps):
        usage_warnings.warn(
            "small loss",
            f"relative: expected a loss above eps={eps:g}, got {float(loss):g}, so its gradient is divided "
            "by almost zero. Use estimator='biased', whose values for equal distributions are above zero",
        )


@eager_only
def ratio_to_real(reference: MMDReference, fake: Tensor, held_out: Tensor) -> Tensor:
    r"""Return MMD^2 of fake samples from a reference, divided by MMD^2 of held-out real samples.

    .. math:: \frac{\mathrm{MMD}^2(\text{reference}, \text{fake})}{\mathrm{MMD}^2(\text{reference}, \text{held out})}

    A ratio of 1 means that fake samples are as near to the reference as real samples, up to the variation between
    draws. If the ratio is well below 1, the fake samples may be copies of rows of the reference. Ratios of different
    features and kernels can be compared and averaged.

    Both values are biased estimates, because an unbiased estimate for real samples is zero on average. The biased
    estimate exceeds it by about :math:`(k(0) - E\,k(g, g')) / n` for :math:`n` samples. This is most of the
    denominator, so both samples must have the same size. The ratio depends on this size: it falls towards 1 for smaller
    samples.

    Args:
        reference: a reference that is not a shard.
        fake: scores `(n, d)`, see :meth:`MMDReference.mmd2`.
        held_out: the same number of real samples, likewise, chosen at random from samples that are not in the
            reference.

    Returns:
        A scalar >= 0 except for rounding, differentiable with respect to `fake`. Each call reads the denominator from
        the device and so waits for a GPU. To compute it only once, divide `reference.mmd2(fake)` by a stored
        `reference.mmd2(held_out)`.

    Raises:
        TypeError: if `reference` is not an :class:`MMDReference` or a sample is not a tensor.
        ValueError: if samples are wrong, see :meth:`MMDReference.mmd2`, or differ in number, dtype or device; if the
            reference is a shard; or if MMD^2 of the held-out samples is zero up to rounding, as it is for the rows of
            the reference themselves.

    Warns:
        UsageWarning: if all values of the kernel between some rows and held-out samples are zero, or all are
            :math:`k(a, a)`. Only the first call from each place in the code is examined.

    Example:
        >>> features = torch.randn(1200, 16)
        >>> reference = MMDReference(features[:1000], RBFKernel(2.0))
        >>> ratio_to_real(reference, torch.randn(200, 16), features[1000:])
        tensor(1.0966)
        >>> ratio_to_real(reference, 0.8 * torch.randn(200, 16), features[1000:])
        tensor(4.6040)
    """
    if not isinstance(reference, MMDReference):
        raise TypeError(f"reference: expected an MMDReference, got {checks.described(reference)}")
    if reference.world > 1:
        raise ValueError(f"reference: expected a whole reference, got the shard {reference.rank} of {reference.world}")
    fake, held_out = checks.same_space("fake", fake, "held_out", held_out)
    checks.with_values({"fake": fake, "held_out": held_out}, "which the division examines")
    if len(fake) != len(held_out):
        raise ValueError(
            "fake, held_out: expected equally many samples, because a biased value depends on their number, got "
            f"{len(fake)} and {len(held_out)}"
        )
    with torch.no_grad():
        floor = reference.mmd2(held_out)
    smallest = ROUNDING * torch.finfo(floor.dtype).eps * reference.self_term.abs().to(floor)
    if not bool(floor > smallest):
        raise ValueError(
            "held_out: expected real samples that are not the rows of the reference, got samples whose MMD^2 of "
            f"{float(floor):.3g} is zero up to rounding"
        )
    return reference.mmd2(fake) / floor
