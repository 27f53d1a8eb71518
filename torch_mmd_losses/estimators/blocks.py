"""Linear-time MMD^2 of very large samples: a mean over blocks, and its variance estimated from their scatter."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor

from torch_mmd_losses import checks, hand_written_gradients, usage_warnings
from torch_mmd_losses.distances import squared_distances
from torch_mmd_losses.groups.call import Tensors
from torch_mmd_losses.groups.values import group_values
from torch_mmd_losses.kernels.base import Kernel, check_kernel
from torch_mmd_losses.kernels.inner_product import is_linear
from torch_mmd_losses.kernels.summands import (
    RadialSummand,
    by_kind,
    is_trained,
    may_be_constant,
    needs_float64,
    sum_of_profiles,
    values_and_slopes,
    worst_conditioning,
)
from torch_mmd_losses.pairs.blind_kernels import EXAMINED, warn_of_one_value
from torch_mmd_losses.pairs.objective import GENERATOR, MMD2, groups_of_pairs
from torch_mmd_losses.pairs.objective_values import objective_values
from torch_mmd_losses.pairs.tile_distances import NearPairs, TileDistances, differences_weighted, ways_of_distances
from torch_mmd_losses.pairs.tiles import tiles_at_once
from torch_mmd_losses.precision import full_precision, total_dtype
from torch_mmd_losses.results import BlockEstimate
from torch_mmd_losses.types import ESTIMATORS, Estimator

TOGETHER_UP_TO = 256
"""Block size up to which one product of many blocks is faster than a loop over blocks."""

AT_ONCE = 2**18
"""Kernel values or scores of one chunk of blocks: 1 MB in float32, which stays in the second-level cache of a core.

Several threads take larger chunks, of up to 8 MB.
"""


class _Group(NamedTuple):
    """A group of pairs in each block.

    `a` and `b` are 0 for real and 1 for fake scores, `distinct` leaves out the pairs of equal index, and `weight` is
    the weight of a kernel value in MMD^2.
    """

    a: int
    b: int
    distinct: bool
    weight: float


def mmd2_blocks(
    real: Tensor, fake: Tensor, kernel: Kernel, *, block_size: int, estimator: Estimator = "unbiased"
) -> BlockEstimate:
    r"""Estimate MMD^2 of very large samples by a mean over blocks, and estimate the variance of that mean.

    Sample :math:`i` of either group belongs to block :math:`\lfloor i / b \rfloor`. With :math:`v_1, \dots, v_B` the
    estimates of :func:`mmd2` from the blocks,

    .. math::

        value = \frac{1}{B} \sum_{j=1}^{B} v_j, \qquad
        variance = \frac{1}{B (B - 1)} \sum_{j=1}^{B} (v_j - value)^2.

    Blocks share no samples, so if the samples are independent, the estimates of the blocks are independent too. `value`
    then has the bias of the estimator, and `variance` is an unbiased estimate of its variance. With `block_size=2` and
    `estimator="u_statistic"` this is the linear-time estimator, the mean of

    .. math:: h = k(x_1, x_2) + k(y_1, y_2) - k(x_1, y_2) - k(x_2, y_1).

    **The samples must be in random order.** Shuffle them once if they are sorted, for example by class or by time.
    Otherwise the blocks differ in distribution, and `variance` is meaningless.

    Time is :math:`O(N b d)` for :math:`N` samples. Memory, gradients included, is :math:`O(N d + b^2)`. It is
    :math:`O(N b)` for trained kernels, for second derivatives, under `torch.compile` and in function transforms.

    Args:
        real: scores `(n, d)` in any floating-point dtype; `(n,)` and `(n, ...)` are flattened from dim 1.
        fake: scores `(n, d)`, equally many.
        kernel: any kernel. The bounds of an :class:`RBFBKernel` are ignored.
        block_size: number of real and of fake samples in a block, :math:`b`. `n` must be a multiple of `block_size`,
            and at least twice as large.
        estimator: the pairs to average over in each block, see :func:`mmd2`.

    Returns:
        Value and variance, scalars, float64 for float64 scores and float32 for all others. Both are
        differentiable twice with respect to both arguments.

    Raises:
        TypeError: if scores are not tensors, `kernel` is not a :class:`Kernel` or `block_size` is not an integer.
        ValueError: if scores are empty or not floating-point, or differ in dimension, dtype, device or number; if the
            estimator is unknown, or `block_size` is too small for it; if the scores do not fill at least two blocks.

    Warns:
        UsageWarning: if all kernel values of the first 256 real and fake samples are zero, or all are :math:`k(a, a)`,
            as in :func:`mmd2`. Only the first call from each place in the code is examined.

    Example:
        >>> real, fake = torch.randn(10_000, 2), torch.randn(10_000, 2) + 0.5
        >>> value, variance = mmd2_blocks(real, fake, RBFKernel(sigma=1.0), block_size=100)
        >>> error = value - mmd2(real, fake, RBFKernel(sigma=1.0))
        >>> bool(error.abs() < 3 * variance.sqrt())
        True

    References:
        Zaremba et al. (2013) for blocks; Gretton et al. (2012), Lemma 14, for `block_size=2`.
    """
    check_kernel(kernel)
    checks.one_of("estimator", estimator, ESTIMATORS)
    real, fake = checks.same_space("real", real, "fake", fake)
    size = checks.whole_number("block_size", block_size, least=1 if estimator == "biased" else 2)
    count = _number_of_blocks(real.shape[0], fake.shape[0], size)
    with full_precision(real.device):
        values = _values(kernel, real.reshape(count, size, -1), fake.reshape(count, size, -1), estimator)
        found = BlockEstimate(values.mean().to(real.dtype), (values.var() / count).to(real.dtype))
    if usage_warnings.is_first_call_from_place():
        warn_of_one_value("mmd2_blocks", [kernel], real[:EXAMINED], fake[:EXAMINED])
    return found


def _number_of_blocks(m: int, n: int, size: int) -> int:
    if m != n:
        raise ValueError(f"real, fake: expected equally many samples, got {m} and {n}")
    if n < 2 * size:
        raise ValueError(f"block_size: expected at most half of the {n} samples, got {size}: one block has no variance")
    if n % size:
        raise ValueError(
            f"real, fake: expected a multiple of block_size={size} samples each, got {n}, of which {n % size} are left "
            f"over (cut both to {n - n % size}, or choose a divisor)"
        )
    return n // size


def _values(kernel: Kernel, real: Tensor, fake: Tensor, estimator: Estimator) -> Tensor:
    """Return the estimate `(B,)` of each block of `real` and `fake` `(B, b, d)`, in :func:`total_dtype`."""
    radial, others = by_kind(kernel._summands())
    by_hand = hand_written_gradients.reverse_mode_only(real, fake) and not any(
        is_trained(summand, real) for summand in radial
    )
    if by_hand and real.shape[1] > TOGETHER_UP_TO:
        return _one_by_one(kernel, real, fake, estimator)
    parts = []
    if radial:
        groups = _groups(real.shape[1], estimator)
        differentiable = partial(_by_autograd, radial, groups)
        if by_hand:
            parts.append(
                hand_written_gradients.batched_values(real, fake, partial(_in_pieces, radial, groups), differentiable)
            )
        else:
            values, elsewhere = differentiable(real, fake), may_be_constant(radial)
            parts.append(hand_written_gradients.with_graph(values, real, fake, may_lead_elsewhere=elsewhere))
    for other in others:
        if is_linear(other):
            parts.append(other.factor * _linear(real, fake, estimator))
        else:
            parts.append(other.factor * group_values(cast(Kernel, other.kernel), Tensors(real, fake), estimator))
    return torch.stack(parts).sum(0)


def _one_by_one(kernel: Kernel, real: Tensor, fake: Tensor, estimator: Estimator) -> Tensor:
    pairs = zip(real, fake, strict=True)
    values = [objective_values(kernel, x, y, estimator, objectives=[GENERATOR])[0] for x, y in pairs]
    return torch.stack(values).to(total_dtype(real.device))


def _linear(real: Tensor, fake: Tensor, estimator: Estimator) -> Tensor:
    # In float64 before anything is multiplied: if the scores have a large mean, products are far larger than MMD^2.
    samples = [scores.to(total_dtype(scores.device)) for scores in (real, fake)]
    value = torch.zeros_like(samples[0][:, 0, 0])
    for a, b, distinct, weight in _groups(real.shape[1], estimator):
        total = (samples[a].sum(1) * samples[b].sum(1)).sum(1)
        value = value + weight * (total - (samples[a] * samples[b]).sum((1, 2)) if distinct else total)
    return value


def _groups(size: int, estimator: Estimator) -> list[_Group]:
    groups = groups_of_pairs(size, size, estimator)
    return [
        _Group(a, b, distinct, weight / count) for weight, (_, a, b, distinct, count) in zip(MMD2, groups, strict=True)
    ]


def _by_autograd(summands: Sequence[RadialSummand], groups: Sequence[_Group], real: Tensor, fake: Tensor) -> Tensor:
    wide = needs_float64(summands, real) and real.device.type != "mps"
    samples, parts = (real.double(), fake.double()) if wide else (real, fake), []
    for a, b, distinct, weight in groups:
        diagonal = torch.eye(real.shape[1], dtype=torch.bool, device=real.device)
        gram = sum_of_profiles(
            summands, squared_distances(samples[a], samples[b], diagonal if a == b else None), real.dtype
        )
        kept = gram.masked_fill(diagonal, 0) if distinct else gram
        parts.append(weight * kept.sum(2).sum(1, dtype=total_dtype(real.device)))
    return torch.stack(parts).sum(0)


def _in_pieces(
    summands: Sequence[RadialSummand], groups: Sequence[_Group], real: Tensor, fake: Tensor, gradients: bool
) -> tuple[Tensor, ...]:
    """Return the estimate of each block and, if `gradients`, its gradients, chunk by chunk."""
    size, d = real.shape[1:]
    values = torch.zeros(real.shape[0], dtype=total_dtype(real.device), device=real.device)
    towards = tuple(torch.zeros_like(scores) for scores in (real, fake)) if gradients else ()
    several = tiles_at_once(None, real.device, share=2)
    at_once = max(1, several * AT_ONCE // (size * max(size, d)))
    for pieces in zip(*(scores.split(at_once) for scores in (real, fake, values, *towards)), strict=True):
        for group in groups:
            _add_group(summands, group, pieces[:2], pieces[2], pieces[3:])
    return values, *towards


def _add_group(
    summands: Sequence[RadialSummand],
    group: _Group,
    samples: Sequence[Tensor],
    values: Tensor,
    towards: Sequence[Tensor],
) -> None:
    """Add the contribution of one group of pairs to `values` `(B,)` and to the gradients in `towards`."""
    a, b, distinct, weight = group
    every = slice(None)
    zeros = samples[a].shape[0] * samples[a].shape[1] if a == b else 0
    ways = ways_of_distances(samples[a], samples[b], worst_conditioning(summands, samples[a]), None)
    for distances in ways:  # pragma: no branch (the last way is always precise)
        sq_dist = distances.of(every, every)
        is_precise, near = distances.repair(sq_dist, every, every, _diagonal(sq_dist) if a == b else None)
        if is_precise and distances.are_precise(sq_dist, zeros=zeros):
            break
    value, slope, rate = values_and_slopes(summands, sq_dist, None, dtype=samples[a].dtype, keep=False)
    if distinct:
        _diagonal(value).zero_()
        _diagonal(slope).zero_()
    row_sums = value.sum(2)
    values.add_(row_sums.sum(1, dtype=values.dtype), alpha=weight)
    if not towards:
        return
    # The gradient of f(|a_i - b_j|^2) is 2 f' (a_i - b_j); a pair within a sample counts in both orders.
    pull = (4 if a == b else 2) * rate * weight
    apart = None if near is None else near.taken_from_(slope)
    slopes = row_sums if slope is value else slope.sum(2)
    towards[a].add_(_weighted_differences(distances, slope, slopes, near, apart, transposed=False), alpha=pull)
    if a != b:
        others = near and near.transposed()
        found = _weighted_differences(distances, slope, slope.sum(1), others, apart, transposed=True)
        towards[b].add_(found, alpha=pull)


def _weighted_differences(
    distances: TileDistances,
    slope: Tensor,
    sums: Tensor,
    near: NearPairs | None,
    apart: Tensor | None,
    *,
    transposed: bool,
) -> Tensor:
    """Return the sums of `slope * (x_i - y_j)` over `j`, in blocks, for `x` in the rows or, transposed, the columns.

    The slopes of near pairs are zero in `slope`, and given apart.
    """
    x, y = (distances.b, distances.a) if transposed else (distances.a, distances.b)
    slope = slope.mT if transposed else slope
    if distances.far:
        return differences_weighted(slope, x, y).neg_()
    found = torch.baddbmm(sums.unsqueeze(2) * x, slope, y, alpha=-1)
    if near is not None and apart is not None:
        found.index_put_(near.places[:-1], apart.unsqueeze(1) * -near.differences, accumulate=True)
    return found


def _diagonal(gram: Tensor) -> Tensor:
    return gram.diagonal(dim1=1, dim2=2)
