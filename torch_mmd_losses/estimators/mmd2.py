"""The estimators of MMD^2 from all pairs of samples."""

from __future__ import annotations

from torch import Tensor

from torch_mmd_losses import checks, usage_warnings
from torch_mmd_losses.groups.call import Tensors
from torch_mmd_losses.groups.values import group_values
from torch_mmd_losses.groups.weights import with_checked_weights
from torch_mmd_losses.kernels.base import Kernel, check_kernel
from torch_mmd_losses.pairs.blind_kernels import warn_of_one_value
from torch_mmd_losses.pairs.objective import GENERATOR
from torch_mmd_losses.pairs.objective_values import objective_values
from torch_mmd_losses.precision import full_precision
from torch_mmd_losses.types import Estimator


def mmd2(
    real: Tensor,
    fake: Tensor,
    kernel: Kernel,
    *,
    estimator: Estimator = "unbiased",
    tile_size: int | None = None,
    real_weights: Tensor | None = None,
    fake_weights: Tensor | None = None,
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

    The first two estimators are unbiased, so for nearly equal distributions half of their values, or somewhat more, are
    negative. The value is never clamped, because negative values have the right gradient, too. Rounding can make the
    biased estimate negative by a few units in the last place of the mean kernel values.

    Where scores nearly coincide, the slope of kernels with a root at zero, such as :class:`LaplaceKernel` and
    :class:`EnergyKernel`, is large. On a CPU, the distances of such pairs are therefore computed from the differences
    of the scores, so that gradients of float64 scores are right within 1e-8 of the sum of the norms of their terms, and
    those of float32 scores within 1e-5. On other devices, under `torch.compile` and in function transforms, distances
    come from a product of matrices.

    With weights :math:`w_i` of the real and :math:`u_i` of the fake samples, which are divided by their sum, the means
    are weighted. The biased estimator is the MMD between two weighted sets of samples,

    .. math::

        \sum_{i, j} w_i w_j\, k(x_i, x_j) - 2 \sum_{i, j} w_i u_j\, k(x_i, y_j) + \sum_{i, j} u_i u_j\, k(y_i, y_j),

    and the unbiased one replaces the sums within a group by
    :math:`\sum_{i \ne j} w_i w_j\, k(x_i, x_j) / (1 - \sum_i w_i^2)`. The `"u_statistic"` has no weights.

    Args:
        real: scores `(m, d)` in any floating-point dtype; `(m,)` and `(m, ...)` are flattened from dim 1.
        fake: scores `(n, d)`, likewise.
        kernel: any kernel. The bounds of an :class:`RBFBKernel` are ignored.
        estimator: the pairs to average over, see the table.
        tile_size: side length of the tiles used for large batches, >= 1. None picks a default for the device; smaller
            tiles need less memory.
        real_weights: weights >= 0 of the real samples `(m,)`, of any sum; None gives all samples the same weight. A
            sample of weight zero is left out, but its scores must be finite.
        fake_weights: weights of the fake samples `(n,)`, likewise.

    Returns:
        A scalar, float64 for float64 scores and float32 for all others. Half-precision scores are computed in float32,
        and so are float32 scores under autocast. Differentiable twice with respect to scores, weights and the
        parameters of the kernel.

    Raises:
        TypeError: if scores or weights are not tensors, `kernel` is not a :class:`Kernel`, or `tile_size` is not an
            integer.
        ValueError: if scores are empty, not floating-point, or too few for the estimator; if real and fake scores are
            not equally many for `"u_statistic"`; if they differ in dimension, dtype or device; if the estimator is
            unknown, or not defined with weights; if `tile_size` is below 1; if weights have another shape or device,
            are negative, infinite or NaN, or all zero. On devices other than a CPU, under `torch.compile` and in
            function transforms, the numbers are not checked, and wrong weights give NaN.

    Warns:
        UsageWarning: if all kernel values are zero, or all are :math:`k(a, a)`, so that the value is meaningless. Only
            the first call from each place in the code is examined.

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
    if real_weights is not None or fake_weights is not None:
        value = _weighted(real, fake, kernel, estimator, tile_size, real_weights, fake_weights)
    else:
        with full_precision(real.device):
            (value,) = objective_values(kernel, real, fake, estimator, objectives=[GENERATOR], tile_size=tile_size)
    if usage_warnings.is_first_call_from_place():
        warn_of_one_value("mmd2", [kernel], real, fake)
    return value


def _weighted(
    real: Tensor,
    fake: Tensor,
    kernel: Kernel,
    estimator: Estimator,
    tile_size: int | None,
    real_weights: Tensor | None,
    fake_weights: Tensor | None,
) -> Tensor:
    """Return the estimate from weighted samples, computed as a single group."""
    tensors = Tensors(real.unsqueeze(0), fake.unsqueeze(0))
    with full_precision(real.device):
        weighted = with_checked_weights(tensors, real_weights, fake_weights, (), estimator)
        return group_values(kernel, weighted, estimator, tile_size)[0].to(real.dtype)
