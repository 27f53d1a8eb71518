"""Mean kernel values and the fraction of saturated pairs, tile by tile, for logging."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from torch_mmd_losses.distances import Pairs, Sample
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.columns import pairs_of_columns
from torch_mmd_losses.kernels.contract import UNBOUNDED
from torch_mmd_losses.kernels.summands import GramSummand, Summand, gram_matrix, has_closed_form
from torch_mmd_losses.pairs.batch import Batch, WeightedBlock
from torch_mmd_losses.pairs.by_autograd import pair_sum
from torch_mmd_losses.pairs.tiles import tile_side, tiles, tiles_at_once
from torch_mmd_losses.precision import total_dtype
from torch_mmd_losses.types import GROUPS, Bounds, Estimator, Group

SATURATED = 0.01
"""A pair counts as saturated if its kernel value, relative to the peak, is this close to zero or to one."""

SHARE = 4
"""See `share` of :func:`tiles_at_once`: values, peaks and masks are separate matrices."""


def mean_values(
    kernel: Kernel,
    real: Tensor,
    fake: Tensor,
    estimator: Estimator,
    *,
    bounds: Bounds,
    tile_size: int | None,
    batch: Batch,
) -> list[Tensor]:
    """Return the mean kernel values of real, cross and fake pairs, and the fraction of pairs that are saturated.

    The means are those of the kernel without bounds. With `bounds`, a pair outside the limits counts as saturated. The
    fraction is NaN if a score is not finite, which no comparison would show.
    """
    side, at_once = tile_side(tile_size, real.device), tiles_at_once(tile_size, real.device, SHARE)
    # Forward-mode derivatives follow also without gradients. Sums that are not in place can be batched.
    samples = [scores.detach() for scores in batch.samples(real, fake)]
    totals = list(torch.zeros(len(GROUPS) + 1, dtype=total_dtype(real.device), device=real.device))
    counts = {}
    summands = kernel._summands()
    closed = [summand for summand in summands if has_closed_form(summand)]
    tiled = [summand for summand in summands if not has_closed_form(summand)]
    for part in batch.blocks(samples, estimator):
        place = GROUPS.index(part.group)
        counts[part.group] = part.pairs
        whole = part.pairs_of(Sample(part.block.a), Sample(part.block.b))
        for summand in closed:
            total = pair_sum(summand, whole, part.group, "none")
            totals[place] = totals[place].add(total, alpha=summand.factor * part.value_weight)
        for rows, columns in tiles(part.block, side, at_once) if part.value_weight else ():
            pairs, times = _tile(part, rows, columns)
            masks = []
            for summand in tiled:
                gram = gram_matrix(summand, pairs)
                totals[place] = totals[place].add(pairs.total(gram), alpha=summand.factor * times)
                masks.append(_saturated(summand, gram, pairs, part.group, bounds))
            mask = _all_of(masks) if len(masks) == len(summands) else None  # closed forms never saturate
            if mask is not None:
                totals[-1] = totals[-1].add(pairs.total(mask.to(real.dtype)), alpha=times)
    for scores in samples:
        totals[-1] = totals[-1] + torch.mul(scores, 0).sum()  # NaN if a score is not finite
    numbers = [*(counts[group] for group in GROUPS), sum(counts.values())]
    return [
        (total / number).to(real.dtype)
        for total, number in zip(batch.totals(torch.stack(totals)), numbers, strict=True)
    ]


def _tile(part: WeightedBlock, rows: slice, columns: slice) -> tuple[Pairs, int]:
    """Return the pairs of a tile, and how often they count: twice if they also stand for a tile below the diagonal."""
    a = Sample(part.block.a[rows])
    on_diagonal = part.block.symmetric and rows == columns
    b = a if on_diagonal else Sample(part.block.b[columns])
    return part.pairs_of(a, b, rows.start, columns.start), 2 if part.block.symmetric and not on_diagonal else 1


def _saturated(summand: Summand, gram: Tensor, pairs: Pairs, group: Group, bounds: Bounds) -> Tensor | None:
    """Return a mask `(m, n)` of the pairs whose gradient has nearly vanished, or None for kernels that never saturate.

    Args:
        summand: the kernel.
        gram: its Gram matrix, without bounds.
        pairs: the pairs.
        group: the group of the pairs.
        bounds: the bounds of the loss.
    """
    if isinstance(summand, GramSummand):
        if summand.function.of_columns is None:
            return None
        ranges, inner = summand.function.of_columns
        columns = pairs_of_columns(pairs, ranges)
        return _all_of([_saturated(part, gram_matrix(part, columns), columns, group, bounds) for part in inner])
    profile = summand.profile
    sq_dist = pairs.sq_dist(profile.conditioning, by_hand=profile.by_hand)
    peak = profile.value(sq_dist.new_zeros(1, 1))
    relative = gram / peak
    # A kernel that is zero at distance zero, such as the energy kernel, has no peak and never saturates.
    flat = ((relative < SATURATED) | (relative > 1 - SATURATED)) & (peak > 0)
    limits = profile.limits(group, bounds)
    return flat if limits == UNBOUNDED else flat | (sq_dist < limits[0]) | (sq_dist > limits[1])


def _all_of(masks: Sequence[Tensor | None]) -> Tensor | None:
    """Return the conjunction of masks; None stands for a mask that is false."""
    found = [mask for mask in masks if mask is not None]
    return reduce(torch.logical_and, found) if len(found) == len(masks) else None
