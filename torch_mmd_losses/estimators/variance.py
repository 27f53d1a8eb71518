"""Unbiased estimate of MMD^2 with an estimate of its variance, for maximising the power of a test."""

from __future__ import annotations

from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.estimators.gram_statistics import LEAST, covariance, gram_statistics, of_u_statistic
from torch_mmd_losses.kernels.base import Kernel, check_kernel
from torch_mmd_losses.precision import full_precision
from torch_mmd_losses.results import ValueAndVariance


def mmd2_and_variance(real: Tensor, fake: Tensor, kernel: Kernel, *, tile_size: int | None = None) -> ValueAndVariance:
    r"""Estimate MMD^2 without bias from all pairs of samples, and estimate the variance of that estimate.

    `value` is the value of :func:`mmd2` with `estimator="unbiased"`. For :math:`m` real and :math:`m` fake samples, let
    :math:`v = (x, y)` be a real and a fake sample, and
    :math:`h(v, v') = k(x, x') + k(y, y') - k(x, y') - k(x', y)`. The variance of `estimator="u_statistic"`, which
    `variance` estimates, is

    .. math::

        variance = \frac{4 (m - 2)}{m (m - 1)} \zeta_1 + \frac{2}{m (m - 1)} \zeta_2, \qquad
        \zeta_1 = \mathrm{Var}_v\, E_{v'} h(v, v'), \quad \zeta_2 = \mathrm{Var}\, h(v, v').

    The variance of `value` is smaller by a term of order :math:`m^{-3}`. In the estimates of both :math:`\zeta`, means
    of products of kernel values run over distinct samples and are unbiased. Products of means are estimated by products
    of the estimated means, which makes `variance` too small by a term of order :math:`m^{-2}`.

    **The estimated variance can be negative** for few samples or close distributions, where the variance is of the same
    order as this error. No floor is applied, so choose a floor before you take the root. To maximise the power of a
    test, maximise :math:`value / \sqrt{variance}` over the parameters of the kernel, or of the network that computes
    the scores, on samples other than those of the test.

    Time is :math:`O(m^2 d)`. Memory, gradients included, is :math:`O(m d + t^2 + m^2 / t)` for tiles of :math:`t` rows.
    It is :math:`O(m^2)` under `torch.compile` and in function transforms.

    Args:
        real: scores `(m, d)` in any floating-point dtype; `(m,)` and `(m, ...)` are flattened from dim 1.
        fake: scores `(m, d)`, equally many, likewise.
        kernel: any kernel, also with trained parameters. The bounds of an :class:`RBFBKernel` are ignored.
        tile_size: side length of the tiles used for large batches, >= 1. None picks a default for the device; smaller
            tiles need less memory.

    Returns:
        Value and variance, scalars, float64 for float64 scores and float32 for all others. Both are differentiable
        twice with respect to both arguments and the parameters of the kernel.

    Raises:
        TypeError: if scores are not tensors, `kernel` is not a :class:`Kernel`, or `tile_size` is not an integer.
        ValueError: if scores are empty, not floating-point, not equally many, or fewer than three; if they differ in
            dimension, dtype or device; if `tile_size` is below 1.

    Example:
        >>> real, fake = torch.randn(500, 2), torch.randn(500, 2) + 0.5
        >>> value, variance = mmd2_and_variance(real, fake, RBFKernel(sigma=1.0))
        >>> ratio = value / variance.clamp_min(1e-8).sqrt()
        >>> bool(ratio > 4)
        True

    References:
        Sutherland et al. (2017), Section 2 and Eq. 5.
    """
    check_kernel(kernel)
    real, fake = checks.same_space("real", real, "fake", fake)
    checks.equally_many({"real": real, "fake": fake}, least=LEAST)
    tile_size = checks.tile_size(tile_size)
    with full_precision(real.device):
        within_real = gram_statistics(kernel, real, None, tile_size)
        within_fake = gram_statistics(kernel, fake, None, tile_size)
        cross = gram_statistics(kernel, real, fake, tile_size)
    shared = covariance(within_real.rows, cross.rows) + covariance(within_fake.rows, cross.columns)
    first = within_real.by_row + within_fake.by_row + cross.by_row + cross.by_column - 2 * shared
    second = within_real.variance + within_fake.variance + 2 * cross.variance - 4 * shared
    value = within_real.mean - 2 * cross.mean + within_fake.mean
    return ValueAndVariance(value.to(real.dtype), of_u_statistic(first, second, real.shape[0]).to(real.dtype))
