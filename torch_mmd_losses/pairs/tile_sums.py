"""The sum of kernel values over a block of pairs with its gradients, tile by tile.

A tile is a few hundred rows and columns of a Gram matrix that never exists as a whole. One matrix product computes the
squared distances of the tile, the kernel maps them, and two more products add the slopes to the gradients. Memory grows
with the number of samples, not with the number of pairs. Tiles within a sample are visited once for both orders of a
pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses.kernels.contract import UNBOUNDED, Limits, ValueAndSlope
from torch_mmd_losses.kernels.profiles import power_of_two
from torch_mmd_losses.kernels.summands import (
    GramSummand,
    RadialSummand,
    common_exponent,
    values_and_slopes,
    worst_conditioning,
)
from torch_mmd_losses.pairs import tile_sums_by_autograd
from torch_mmd_losses.pairs.half_gradient import HalfGradient
from torch_mmd_losses.pairs.tile_distances import NearPairs, ways_of_distances
from torch_mmd_losses.pairs.tiles import Block, tiles
from torch_mmd_losses.precision import total_dtype

Wanted = tuple[bool, bool]
"""Whether to return the gradients with respect to `a` and to `b`."""


class SumWithGradients(NamedTuple):
    """The sum of kernel values over a block of pairs, and the wanted gradients with respect to `a` and `b`.

    For a symmetric block, `to_a` is the whole gradient and `to_b` is None.
    """

    total: Tensor
    to_a: Tensor | None
    to_b: Tensor | None

    @classmethod
    def zeros(cls, block: Block, wanted: Wanted) -> SumWithGradients:
        """Return a sum to add to."""
        return cls(
            torch.zeros((), dtype=total_dtype(block.a.device), device=block.a.device),
            torch.zeros_like(block.a) if wanted[0] else None,
            torch.zeros_like(block.b) if wanted[1] and not block.symmetric else None,
        )

    def add(self, other: SumWithGradients, factor: float) -> None:
        """Add a multiple of another sum over the same block."""
        for mine, theirs in zip(self, other, strict=True):
            if mine is not None and theirs is not None:
                mine.add_(theirs, alpha=factor)


def sums_with_gradients(
    radial: Sequence[RadialSummand],
    others: Sequence[GramSummand],
    block: Block,
    limits: Sequence[tuple[Limits, ...]],
    *,
    wanted: Wanted,
    side: int,
    at_once: int,
) -> list[SumWithGradients]:
    """Return the sum of a kernel over a block of pairs for each choice of limits. Equal choices are computed once.

    Args:
        radial: the summands of the kernel that are functions of the distance.
        others: the other summands of the kernel.
        block: the pairs.
        limits: the choices, each with limits of the squared distance for every radial summand.
        wanted: which gradients to return.
        side: number of rows and columns of a tile.
        at_once: how many tiles an operator takes at once.
    """
    choices = list(dict.fromkeys(limits))
    if radial and choices:
        sums = _radial_sums(radial, block, choices, wanted=wanted, side=side, at_once=at_once)
    else:
        sums = [SumWithGradients.zeros(block, wanted) for _ in choices]
    for summand in others if choices else ():
        more = SumWithGradients.zeros(block, wanted)
        tile_sums_by_autograd.add_sum(summand, block, *more, side=side)
        for found in sums:
            found.add(more, summand.factor)
    return [sums[choices.index(choice)] for choice in limits]


def _radial_sums(
    summands: Sequence[RadialSummand],
    block: Block,
    limits: Sequence[tuple[Limits, ...]],
    *,
    wanted: Wanted,
    side: int,
    at_once: int,
) -> list[SumWithGradients]:
    dtype, unbounded = block.a.dtype, len(limits) == 1 and all(limit == UNBOUNDED for limit in limits[0])
    factor = common_exponent(summands) if unbounded else None
    conditioning = worst_conditioning(summands, block.a)
    ways = ways_of_distances(block.a, block.b, conditioning, factor)
    for distances in ways:  # pragma: no branch (the last way is always precise)
        accumulators = [_Accumulator(distances.a, distances.b, block.symmetric, wanted, distances.far) for _ in limits]
        is_wide = conditioning.is_wide(distances.largest)
        for rows, columns in tiles(block, side, at_once, merged=True):
            sq_dist = distances.of(rows, columns)
            diagonal = block.meets_diagonal(rows, columns)
            equal = block.diagonal(sq_dist, rows, columns) if diagonal and block.same else None
            is_precise, near = distances.repair(sq_dist, rows, columns, equal)
            if not is_precise or not distances.are_precise(sq_dist, zeros=0 if equal is None else len(equal)):
                break  # start anew, more precisely
            for i, choice in enumerate(limits):
                if factor is None:
                    keep = i + 1 < len(limits)
                    mapped = values_and_slopes(summands, sq_dist, choice, dtype=dtype, keep=keep, in_float64=is_wide)
                else:
                    mapped = power_of_two(sq_dist.double() if is_wide else sq_dist, factor)
                if diagonal and block.distinct:
                    for matrix in mapped[:2]:
                        block.diagonal(matrix, rows, columns).zero_()
                accumulators[i].add(rows, columns, mapped, near)
        else:
            break
    return [accumulator.result(dtype) for accumulator in accumulators]


class _Accumulator:
    """Sums over tiles for one choice of limits."""

    def __init__(self, a: Tensor, b: Tensor, symmetric: bool, wanted: Wanted, far: bool) -> None:
        self.symmetric, self.dtype = symmetric, a.dtype
        self.values = torch.zeros(a.shape[0], dtype=total_dtype(a.device), device=a.device)
        self.to_a = HalfGradient(a, b, far) if wanted[0] else None
        self.to_b = self.to_a if self.symmetric else HalfGradient(b, a, far) if wanted[1] else None

    def add(self, rows: slice, columns: slice, mapped: ValueAndSlope, near: NearPairs | None) -> None:
        value, slope, rate = mapped
        row_sums = value.sum(1)
        # In a symmetric block, the rows above the square on the diagonal also stand for the columns below it.
        mirrored = min(rows.stop, columns.start) - rows.start if self.symmetric else 0
        all_mirrored = mirrored == len(value)
        self.values[rows].add_(row_sums, alpha=2 if all_mirrored else 1)
        if mirrored and not all_mirrored:
            self.values[rows][:mirrored].add_(row_sums[:mirrored])
        if slope.dtype != self.dtype:  # this check costs less than a conversion that changes nothing
            slope = slope.to(self.dtype)
        apart = None if near is None else near.taken_from_(slope)
        if self.to_a is not None:
            sums = row_sums if slope is value else None
            self.to_a.add(rows, columns, slope, rate, sums=sums, near=near, apart=apart)
        height = mirrored if self.symmetric else len(value)
        if self.to_b is not None and height:
            upper = slope[:height]
            if near is not None and apart is not None:
                in_upper = near.places[0] < height
                near, apart = near.chosen(in_upper).transposed(), apart[in_upper]
            others = slice(rows.start, rows.start + height)
            self.to_b.add(columns, others, upper.T, rate, sums=upper.sum(0), near=near, apart=apart)

    def result(self, dtype: torch.dtype) -> SumWithGradients:
        factor = 4.0 if self.symmetric else 2.0  # a pair within a set counts in both orders
        to_a = None if self.to_a is None else self.to_a.result(factor).to(dtype)
        to_b = None if self.to_b is None or self.symmetric else self.to_b.result(factor).to(dtype)
        return SumWithGradients(self.values.sum(), to_a, to_b)
