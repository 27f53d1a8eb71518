"""The fields of drifting models: attraction to real samples, and repulsion from generated samples."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from torch_mmd_losses import checks, usage_warnings
from torch_mmd_losses.distances import widened
from torch_mmd_losses.fields import direct
from torch_mmd_losses.fields.affinities import Affinity
from torch_mmd_losses.fields.field_sums import field, log_sums
from torch_mmd_losses.fields.log_kernels import LogKernel, log_kernel
from torch_mmd_losses.fields.sample_sets import SampleSet, sets_of_samples
from torch_mmd_losses.fields.sharp_kernels import sharp_kernel
from torch_mmd_losses.fields.visits import Visits
from torch_mmd_losses.hand_written_gradients import is_differentiated
from torch_mmd_losses.kernels.base import Kernel, check_kernel
from torch_mmd_losses.kernels.summands import by_kind
from torch_mmd_losses.pairs.blind_kernels import NEVER, UNDERFLOW, warn_of_blind_groups
from torch_mmd_losses.pairs.pair_functions import KernelValues, PairFunction
from torch_mmd_losses.types import NORMALISERS, Normaliser


def drift(
    fake: Tensor,
    real: Tensor,
    *,
    kernel: Kernel,
    negatives: Tensor | None = None,
    normalise: Normaliser = "rows_and_columns",
    real_weights: Tensor | None = None,
    negative_weights: Tensor | None = None,
    exclude_self: bool | None = None,
) -> Tensor:
    r"""Return the drift of fake samples: attraction to real samples minus attraction to negatives.

    .. math:: V(x) = \sum_j \alpha^+_j(x) \, (y^+_j - x) - \sum_j \alpha^-_j(x) \, (y^-_j - x)

    for fake samples :math:`x`, real samples :math:`y^+` and negatives :math:`y^-`, which by default are the other fake
    samples. `fake + step * drift(fake, real, ...)` is nearer to the real samples. With the weights :math:`w` of the
    samples, which are 1 by default, the coefficients are as follows.

    ====================  ==============================================================================================
    `normalise`           coefficients
    ====================  ==============================================================================================
    "none"                :math:`\alpha_j = w_j k(x, y_j) / \sum_l w_l`, for real samples and negatives apart: the
                          velocity of MMD^2 with the sharp kernel below.
    "rows"                :math:`\alpha_j = w_j k(x, y_j) / \sum_l w_l k(x, y_l)`, for real samples and negatives apart:
                          the difference of two mean shifts.
    "rows_and_columns"    With the affinities :math:`A_{ij} = w_j k(x_i, y_j) / \sqrt{Z_i Z'_j}` and their row sums over
                          real samples, :math:`S^+_i`, and over negatives, :math:`S^-_i`:
                          :math:`\alpha^+_j(x_i) = A^+_{ij} S^-_i` and :math:`\alpha^-_j(x_i) = A^-_{ij} S^+_i`.
                          :math:`Z_i = \sum_l w_l k(x_i, y_l)` runs over real samples and negatives together, and
                          :math:`Z'_j = \sum_l k(x_l, y_j)` over fake samples. Without weights, :math:`A` is the
                          geometric mean of a softmax over rows and one over columns.
    "sharp"               :math:`\alpha_j = w_j k(x, y_j) / \sum_l w_l k^\#(x, y_l)`, for real samples and negatives
                          apart: the gradient of the logarithm of a ratio of densities.
    ====================  ==============================================================================================

    :math:`k^\#` is the sharp kernel, the function of the distance with :math:`\nabla_x k^\#(x, y) = k(x, y) (y - x)`.
    For a Gaussian kernel it is :math:`\sigma^2 k`. For a Laplace kernel it is
    :math:`\tau^2 (1 + r / \tau) e^{-r / \tau}` at the distance :math:`r`, a multiple of the Matern kernel of order 3/2.
    "none" and "sharp" are gradients of scalar functions; the others in general are not. For a Gaussian kernel "rows" is
    :math:`\sigma^2` times "sharp". All except "none" are computed from logarithms of the kernel where its values would
    underflow, so small bandwidths are safe.

    On a CPU, float32 samples are evaluated in float32 where the error stays below 1e-5 of the sum of absolute terms.
    They are evaluated in float64 for bandwidths that are small compared with the distances, for kernels of your own,
    and with gradients. A few samples that nearly coincide do not matter, since their pairs are recomputed. Other
    devices use logarithms, in float64 where that is fast.

    A kernel on some columns, `kernel.on(...)`, takes its weights from the distances in these columns, while the
    displacements are those of all columns. So features can be compared that stand next to the samples they belong to:
    `drift(torch.cat([features, samples], -1), ..., kernel=kernel.on(slice(0, d)))`. Such a kernel has no sharp kernel:
    a function whose gradient is :math:`k (y - x)` in the other columns, too, would have mixed derivatives that depend
    on their order. These drifts are computed from logarithms, in float64 where that is fast.

    Memory grows with the numbers of samples, not with the number of pairs. Under `torch.compile` and in transforms of
    `torch.func`, and for kernels with trained parameters, there is a matrix of all pairs of all groups instead. The
    groups of a call do not influence one another. In training, the drift is a target: `drift(fake.detach(), ...)`, see
    :func:`drift_loss`.

    Args:
        fake: samples `(*G, n, d)` in any floating-point dtype, for any number of dimensions of groups `*G`.
        real: samples `(*G, m, d)`, of the same groups, dimension, dtype and device.
        kernel: a kernel of the distance, with values above zero unless `normalise="none"`. For "sharp", one of this
            library with a finite sharp kernel, and for all others also kernels of the distance in some columns,
            `kernel.on(...)`, with values above zero, and sums and products of both.
        negatives: samples `(*G, l, d)`. None stands for the fake samples. To add other negatives to them, such as
            unconditional samples for guidance, pass `torch.cat([fake, others], -2)` with `exclude_self=True`.
        normalise: see above. Deng et al. use "rows_and_columns".
        real_weights: weights `(*G, m)`, zero or above, and of either sign for "none", where their sum must not be zero.
            None stands for equal weights.
        negative_weights: weights `(*G, l)` of the negatives, likewise.
        exclude_self: leave out the pairs of a fake sample and the negative with its index. None means True if there are
            no `negatives`, and False otherwise.

    Returns:
        Vectors `(*G, n, d)` in the units of the samples (for "none" times the units of the kernel, for "sharp" inverse
        units), float64 for float64 samples and float32 for all others. Differentiable twice with respect to all
        tensors; second derivatives need a matrix of all pairs of each group.

    Raises:
        TypeError: if samples or weights are not tensors, or `kernel` is not a :class:`Kernel` that `normalise` can use.
        ValueError: if samples are empty or not floating-point, or differ in groups, dimension, dtype or device; if
            weights have another shape or are below zero; if there are fewer than two fake samples without negatives; if
            `normalise` is unknown, or the sharp kernel is infinite.

    Warns:
        UsageWarning: if in all groups all kernel values are :math:`k(a, a)`, so that the kernel tells no samples apart,
            or, for "none", if all are zero. Only the first call from each place in the code is examined, in up to 64
            groups, and in each the first 256 fake and real samples.

    Example:
        >>> fake, real = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]])
        >>> drift(fake, real, kernel=LaplaceKernel(0.5), normalise="rows")
        tensor([[1.1192],
                [2.1192]])

    References:
        Deng et al. (2026), Eq. 8-12 and Algorithm 2, which has no weights. Their Section A.7 weights the kernel, as
        here. For sharp kernels, *Drifting Fields are not Conservative* (2026, arXiv 2604.06333).
    """
    check_kernel(kernel)
    checks.one_of("normalise", normalise, NORMALISERS)
    x, sets, groups = sets_of_samples(
        fake, real, negatives, real_weights, negative_weights, exclude_self, signed=normalise == "none"
    )
    summands = kernel._summands()
    radial, of_columns = by_kind(summands)
    values = KernelValues(summands)
    traced = values.is_trained(x)
    if normalise == "none" and not of_columns:
        found = _plain(x, sets, values, traced)
    else:
        log = log_kernel(summands, normalise, x.dtype)
        sharp = sharp_kernel(summands) if normalise == "sharp" else None
        tried = None
        tensors = [tensor for each in sets for tensor in each.tensors()]
        if not (traced or of_columns) and direct.is_possible(x, *tensors):
            if normalise == "rows_and_columns":
                tried = direct.balanced(x, sets, radial)
            elif sharp is not None:
                tried = direct.divided_by_sharp(x, sets, radial, sharp)
            else:
                tried = direct.divided(x, sets, radial)
        divisor = log if sharp is None else sharp.log
        found = _by_logarithms(x, sets, log, divisor, normalise, traced) if tried is None else tried
    if usage_warnings.is_first_call_from_place():
        smallest = UNDERFLOW if normalise == "none" else NEVER  # since logarithms do not underflow
        warn_of_blind_groups("drift", kernel, sets[0].samples, x, smallest=smallest)
    return found.to(x.dtype).reshape(*groups, *found.shape[-2:])


def _by_logarithms(
    x: Tensor, sets: Sequence[SampleSet], log: LogKernel, divisor: LogKernel, normalise: Normaliser, traced: bool
) -> Tensor:
    wide, _ = widened(x, x)
    sets = [each.widened(x, wide) for each in sets]
    if normalise == "none":
        return _plain(wide, sets, log, traced)
    if normalise == "rows_and_columns":
        return _balanced(wide, sets, log, traced)
    return _divided(wide, sets, log, divisor, traced)


def _plain(x: Tensor, sets: Sequence[SampleSet], kernel: KernelValues | LogKernel, traced: bool) -> Tensor:
    pulls = []
    for samples, weights, indices in sets:
        function: PairFunction
        if isinstance(kernel, KernelValues):
            function = kernel
        else:
            function = Affinity(kernel, torch.zeros_like(x[..., 0]), None, (x, samples))
        found = field(x, samples, weights, function, indices, traced=traced)
        total = weights.sum(-1, keepdim=True, dtype=found.mass.dtype)
        if indices.distinct:
            total = total - weights[:, : x.shape[1]]
        pulls.append(found.pull / total.unsqueeze(-1))
    return pulls[0] - pulls[1]


def _divided(x: Tensor, sets: Sequence[SampleSet], log: LogKernel, divisor: LogKernel, traced: bool) -> Tensor:
    pulls = []
    for samples, weights, indices in sets:
        visits = Visits(x, samples, log, indices)
        logarithm, _ = log_sums(visits, divisor, weights.log(), over_points=False)
        found = field(
            x, samples, weights, Affinity(log, logarithm, None, (x, samples)), indices, traced=traced, visits=visits
        )
        mass = found.mass
        if divisor is not log:
            affinity = Affinity(divisor, logarithm)
            mass = field(x, samples, weights, affinity, indices, traced=traced, visits=visits).mass
        pulls.append(found.pull / mass.unsqueeze(-1))
    return pulls[0] - pulls[1]


def _balanced(x: Tensor, sets: Sequence[SampleSet], log: LogKernel, traced: bool) -> Tensor:
    visits = [Visits(x, samples, log, indices) for samples, _, indices in sets]
    each = [log_sums(own, log, weights.log()) for own, (_, weights, _) in zip(visits, sets, strict=True)]
    of_rows = torch.logaddexp(each[0][0], each[1][0])
    # A column whose only pair is left out has no sum.
    of_columns = [columns.masked_fill(columns == -math.inf, 0) for _, columns in each]
    follow = traced or is_differentiated(x, *sets[0].tensors(), *sets[1].tensors())
    found = []
    for (samples, weights, indices), columns, own in zip(sets, of_columns, visits, strict=True):
        if follow:  # the sums whose logarithms are constants to autograd are one, but not their derivatives
            ones = weights.new_ones(()).expand(x.shape[:2])
            sums = field(samples, x, ones, Affinity(log, columns, None, (samples, x)), indices, traced=traced).mass
            weights = weights / torch.where(sums == 0, 1, sums).sqrt()
        affinity = Affinity(log, of_rows / 2, columns / 2, (x, samples))
        found.append(field(x, samples, weights, affinity, indices, traced=traced, visits=own))
    attraction, repulsion = found
    total = repulsion.mass.unsqueeze(-1) * attraction.pull - attraction.mass.unsqueeze(-1) * repulsion.pull
    if not follow:
        return total
    parts = [
        field(x, samples, weights, Affinity(log, of_rows, None, (x, samples)), indices, traced=traced).mass
        for samples, weights, indices in sets
    ]
    return total / (parts[0] + parts[1]).unsqueeze(-1)
