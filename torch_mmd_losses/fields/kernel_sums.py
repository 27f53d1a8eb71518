"""Sums of kernel values, and of samples weighted by them, at given points."""

from __future__ import annotations

from torch import Tensor

from torch_mmd_losses import checks, usage_warnings
from torch_mmd_losses.fields import arguments
from torch_mmd_losses.kernels.base import Kernel, check_kernel
from torch_mmd_losses.pairs.blind_kernels import UNDERFLOW, warn_of_blind_groups
from torch_mmd_losses.pairs.kernel_products import kernel_moments


def kernel_sums(
    points: Tensor,
    samples: Tensor,
    kernel: Kernel,
    *,
    weights: Tensor | None = None,
    exclude_self: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""Return sums over samples of kernel values, and of the samples weighted by them, at each point.

    .. math:: s_i = \sum_j w_j \, k(x_i, y_j), \qquad v_i = \sum_j w_j \, k(x_i, y_j) \, y_j

    for points :math:`x` and samples :math:`y`. These sums give density estimates, barycentres :math:`v_i / s_i`, mean
    shifts :math:`v_i / s_i - x_i`, and the attraction of a loss on fixed data. A group is a separate pair of sets.
    Groups do not influence one another.

    The sums are exact and computed tile by tile, so memory grows with the numbers of points and samples, not with the
    number of pairs. Under `torch.compile` and in transforms of `torch.func`, and for kernels with trained parameters,
    there is one matrix of all pairs of all groups instead. A tile has many small groups; a kernel of yours that defines
    `forward` is evaluated group by group, which is slower. On a CPU, float32 samples are evaluated in float32 where the
    error is below 1e-5 of the sums of absolute terms, and in float64 elsewhere.

    Args:
        points: points `(*G, p, d)` in any floating-point dtype, for any number of dimensions of groups `*G`, including
            none.
        samples: samples `(*G, n, d)`, of the same groups, dimension, dtype and device.
        kernel: any kernel. The bounds of an :class:`RBFBKernel` are ignored.
        weights: weights `(*G, n)` of the samples, of either sign. None gives each sample the weight 1.
        exclude_self: leave out the pairs of equal index, `j = i`. There have to be as many points as samples.

    Returns:
        The sums `(*G, p)` and `(*G, p, d)`, float64 for float64 points and float32 for all others. Both may have either
        sign, and are differentiable twice with respect to points, samples and weights.

    Raises:
        TypeError: if an argument is not a tensor, `kernel` is not a :class:`Kernel`, or `exclude_self` is not a bool.
        ValueError: if points or samples have fewer than two dimensions, are empty or not floating-point, or differ in
            groups, dimension, dtype or device; if weights have another shape or device than one for each sample; if
            `exclude_self` is true and there are not as many points as samples.

    Warns:
        UsageWarning: if in all groups all kernel values are zero, or all are :math:`k(a, a)`, so that the sums say
            nothing. Only the first call from each place in the code is examined, in up to 64 groups, and in each the
            first 256 points and samples.

    Example:
        >>> samples = torch.tensor([[0.0], [1.0], [3.0]])
        >>> mass, moment = kernel_sums(torch.tensor([[0.5], [3.0]]), samples, RBFKernel())
        >>> mass
        tensor([1.8089, 1.1464])
        >>> moment / mass.unsqueeze(-1)  # barycentres
        tensor([[0.5607],
                [2.7348]])

    References:
        Gretton et al. (2012): the empirical mean embedding is :math:`s / n`. Comaniciu and Meer (2002): the mean shift.
    """
    check_kernel(kernel)
    distinct = checks.flag("exclude_self", exclude_self)
    x, y, groups = checks.same_groups("points", points, "samples", samples)
    factors = arguments.weights("weights", weights, y, groups)
    if distinct and x.shape[1] != y.shape[1]:
        raise ValueError(
            f"points, samples: expected as many points as samples for exclude_self=True, got {x.shape[1]} and "
            f"{y.shape[1]}"
        )
    mass, moment = kernel_moments(x, y, factors, kernel, distinct=distinct)
    if usage_warnings.is_first_call_from_place():
        warn_of_blind_groups("kernel_sums", kernel, x, y, smallest=UNDERFLOW)
    return mass.reshape(*groups, -1), moment.reshape(*groups, *moment.shape[1:])
