"""The named tuples that losses, estimators and tests return."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Losses(NamedTuple):
    """The two losses of one training step, each a scalar to be minimised."""

    discriminator: Tensor
    """The discriminator's loss: `L_{D,lambda}` of an MMD GAN."""
    generator: Tensor
    """The generator's loss: `MMD^2` of an MMD GAN."""


class Terms(NamedTuple):
    """Mean kernel values of a batch, for logging: detached scalars."""

    k_rr: Tensor
    """Mean kernel value over pairs of real scores, `E k(x, x')`."""
    k_rf: Tensor
    """Mean kernel value over pairs of a real and a fake score, `E k(x, y)`."""
    k_ff: Tensor
    """Mean kernel value over pairs of fake scores, `E k(y, y')`."""
    saturated: Tensor
    """Fraction of the pairs whose gradient has nearly vanished, between 0 and 1."""


class ScaledTerms(NamedTuple):
    """Mean kernel values of a batch and the scale of a scaled MMD loss, for logging: detached scalars."""

    k_rr: Tensor
    """Mean kernel value over pairs of real scores, `E k(x, x')`."""
    k_rf: Tensor
    """Mean kernel value over pairs of a real and a fake score, `E k(x, y)`."""
    k_ff: Tensor
    """Mean kernel value over pairs of fake scores, `E k(y, y')`."""
    saturated: Tensor
    """Fraction of the pairs whose gradient has nearly vanished, between 0 and 1."""
    scale: Tensor
    r"""The factor of :math:`\mathrm{MMD}^2` in the losses, above 0."""


class BlockEstimate(NamedTuple):
    """An estimate of MMD^2 from independent blocks, with an estimate of its variance."""

    value: Tensor
    """The mean of the estimates of all blocks, a scalar."""
    variance: Tensor
    """Unbiased estimate of the variance of `value`, a scalar, never negative. Its root is the standard error."""


class ValueAndVariance(NamedTuple):
    """An estimate of MMD^2 from all pairs, with an estimate of its variance."""

    value: Tensor
    """Unbiased estimate of MMD^2, a scalar; may be negative."""
    variance: Tensor
    """Estimate of the variance of `value`, a scalar >= 0."""


class TwoSampleTest(NamedTuple):
    """The result of a two-sample test: scalars."""

    statistic: Tensor
    """Unbiased estimate of MMD^2 for one kernel. For several kernels, the largest of their estimates in units of their
    standard deviations, or the fused statistic."""
    p_value: Tensor
    """Probability of a statistic at least this large if both samples come from the same distribution, in (0, 1]; NaN
    if kernel values overflow, or if a score on a device that the host must not read is infinite or NaN."""


class RelativeTest(NamedTuple):
    """The result of a three-sample test: scalars."""

    difference: Tensor
    """Unbiased estimate of MMD^2 between `fake` and `real` minus MMD^2 between `other` and `real`. Negative if `fake`
    is nearer."""
    variance: Tensor
    """Estimate of the variance of `difference`, >= 0."""
    statistic: Tensor
    """`difference` over the root of `variance`; NaN if the variance is zero."""
    p_value: Tensor
    """Small if `fake` is nearer to `real` than `other` is. If these samples are equally many, it is the standard normal
    distribution function at `statistic`, otherwise at `statistic` without its skewness. The correction usually
    makes p-values smaller if there are more fake samples than others, and larger if there are fewer."""
