"""Unbiased estimate of MMD^2 with an estimate of its variance, for maximising the power of a test."""

from __future__ import annotations

from torch import Tensor

from torch_mmd_losses import checks, usage_warnings
from torch_mmd_losses.estimators.gram_statistics import LEAST, gram_statistics, variance_of_effects
from torch_mmd_losses.kernels.base import Kernel, check_kernel
from torch_mmd_losses.pairs.blind_kernels import warn_of_one_value
from torch_mmd_losses.precision import full_precision
from torch_mmd_losses.results import ValueAndVariance


def mmd2_and_variance(real: Tensor, fake: Tensor, kernel: Kernel, *, tile_size: int | None = None) -> ValueAndVariance:
    r"""Estimate MMD^2 without bias from all pairs of samples, and estimate the variance of that estimate.

    `value` is the value of :func:`mmd2` with `estimator="unbiased"`. A kernel value of two samples is the sum of a
    constant, an effect of each sample, and an interaction
    :math:`\tilde k(a, b) = k(a, b) - E\,k(a, \cdot) - E\,k(\cdot, b) + E\,k`, all of them uncorrelated. For :math:`m`
    real samples :math:`x` and :math:`n` fake samples :math:`y`, the variance is therefore

    .. math::

        \underbrace{\frac{4}{m} \mathrm{Var}\,\alpha(x) + \frac{4}{n} \mathrm{Var}\,\beta(y)}_{L} +
        \underbrace{\frac{2 E\,\tilde k(x, x')^2}{m (m - 1)} + \frac{2 E\,\tilde k(y, y')^2}{n (n - 1)} +
        \frac{4 E\,\tilde k(x, y)^2}{m n}}_{S},

    with :math:`\alpha(x) = E_{x'} k(x, x') - E_y k(x, y)` and :math:`\beta(y) = E_{y'} k(y, y') - E_x k(x, y)`. Both
    :math:`L` and :math:`S` are estimated without bias, and the estimate of :math:`S` is never negative:

    .. math:: variance = \max(\hat L, 0) + \hat S.

    The maximum keeps the estimate positive. If the distributions are equal, :math:`L` is zero, and the estimate is too
    large on average: by 30 to 50 % in the simulations on the :doc:`benchmarks page </benchmarks>`. Like
    :math:`\mathrm{MMD}^2`, the estimate stays the same if a function of one sample is added to the kernel. For the
    linear kernel, for example, it does not depend on the mean of the features.

    To maximise the power of a test, maximise :math:`value / \sqrt{variance}` over the parameters of the kernel, or of
    the network that computes the scores, on samples other than those of the test.

    Time is :math:`O((m + n)^2 d)`. Memory, first and second derivatives included, is :math:`O((m + n) d + t^2)` for
    tiles of :math:`t` rows, also for trained kernels. It is :math:`O((m + n)^2)` under `torch.compile` and in function
    transforms.

    Args:
        real: scores `(m, d)` in any floating-point dtype; `(m,)` and `(m, ...)` are flattened from dim 1.
        fake: scores `(n, d)`, likewise.
        kernel: any kernel, also with trained parameters, see :class:`Kernel`. The bounds of an :class:`RBFBKernel` are
            ignored.
        tile_size: side length of the tiles used for large batches, >= 1. None picks a default for the device; smaller
            tiles need less memory.

    Returns:
        Value and variance, scalars, float64 for float64 scores and float32 for all others. Both are differentiable
        twice with respect to both arguments and the parameters of the kernel.

    Raises:
        TypeError: if scores are not tensors, `kernel` is not a :class:`Kernel`, or `tile_size` is not an integer.
        ValueError: if scores are empty, not floating-point, or fewer than four; if they differ in dimension, dtype or
            device; if `tile_size` is below 1.

    Warns:
        UsageWarning: if all kernel values are zero, or all are :math:`k(a, a)`, as in :func:`mmd2`. Only the first
            call from each place in the code is examined.

    Example:
        >>> real, fake = torch.randn(500, 2), torch.randn(500, 2) + 0.5
        >>> value, variance = mmd2_and_variance(real, fake, RBFKernel(sigma=1.0))
        >>> bool(value / variance.sqrt() > 4)
        True

    References:
        Hoeffding (1948) for the parts; Sutherland et al. (2017), Section 2, for power; Szekely and Rizzo (2014) for
        the interactions within a sample.
    """
    check_kernel(kernel)
    real, fake = checks.same_space("real", real, "fake", fake)
    checks.enough_samples({"real": real, "fake": fake}, least=LEAST)
    tile_size = checks.tile_size(tile_size)
    m, n = real.shape[0], fake.shape[0]
    summands = kernel._summands()
    with full_precision(real.device):
        xx = gram_statistics(summands, real, real, None, tile_size)
        yy = gram_statistics(summands, real, fake, None, tile_size)
        xy = gram_statistics(summands, real, real, fake, tile_size)
    of_real = variance_of_effects(xx.rows - xy.rows, [(xx, m - 2), (xy, n)])
    of_fake = variance_of_effects(yy.rows - xy.columns, [(yy, n - 2), (xy, m)])
    interactions = (
        2 / (m * (m - 1)) * xx.interaction + 2 / (n * (n - 1)) * yy.interaction + 4 / (m * n) * xy.interaction
    )
    variance = (4 / m * of_real + 4 / n * of_fake).clamp_min(0) + interactions
    value = xx.mean - 2 * xy.mean + yy.mean
    if usage_warnings.is_first_call_from_place():
        warn_of_one_value("mmd2_and_variance", [kernel], real, fake)
    return ValueAndVariance(value.to(real.dtype), variance.to(real.dtype))
