"""Sums of trained kernels over a block of pairs, with gradients for scores and for parameters, tile by tile."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses.distances import Sample
from torch_mmd_losses.kernels import trained_tensors
from torch_mmd_losses.kernels.contract import UNBOUNDED, Limits
from torch_mmd_losses.kernels.summands import GramSummand, RadialSummand, Summand, worst_conditioning
from torch_mmd_losses.pairs.half_gradient import HalfGradient
from torch_mmd_losses.pairs.tile_distances import TileDistances, ways_of_distances
from torch_mmd_losses.pairs.tiles import Block, tile_side, tiles
from torch_mmd_losses.precision import total_dtype

NETWORK_TILE = 1024
"""Least side length of a tile for kernels that may map scores through a network, which runs once for each tile."""

FLOAT16_SUMS = (10, 0)
"""Powers of two that a sum in float16 becomes if all its terms are one. The second is used if the first overflows.

The largest float16 is near `2 ** 16`. Sums of small terms have more digits with the first.
"""


class Trained(NamedTuple):
    """Kernels with trained parameters.

    Attributes:
        radial: the kernels of the distance among them.
        others: the other kernels.
        tensors: the tensors that they are trained through.
    """

    radial: Sequence[RadialSummand]
    others: Sequence[GramSummand]
    tensors: tuple[Tensor, ...]

    def summands(self) -> list[Summand]:
        """Return all kernels."""
        return [*self.radial, *self.others]

    def side(self, tile_size: int | None, device: torch.device) -> int:
        """Return the number of rows and columns of a tile: `tile_size`, or a default."""
        default = tile_side(tile_size, device)
        return max(default, NETWORK_TILE) if self.others and tile_size is None else default


NOTHING = Trained((), (), ())


class Wanted(NamedTuple):
    """Whether gradients with respect to the rows, to the columns and to the tensors of the kernels are wanted."""

    a: bool
    b: bool
    tensors: bool


class Sums(NamedTuple):
    """A sum over a block of pairs and its gradients; unwanted gradients are None.

    For a symmetric block, `to_a` is the whole gradient and `to_b` is None. Gradients with respect to the tensors of the
    kernels are in :func:`total_dtype`.
    """

    total: Tensor
    to_a: Tensor | None
    to_b: Tensor | None
    to_tensors: list[Tensor] | None


def zeros(kernels: Trained, block: Block, wanted: Wanted) -> Sums:
    """Return sums to add to."""
    dtype = total_dtype(block.a.device)
    return Sums(
        torch.zeros((), dtype=dtype, device=block.a.device),
        torch.zeros_like(block.a) if wanted.a else None,
        torch.zeros_like(block.b) if wanted.b and not block.symmetric else None,
        [torch.zeros_like(tensor, dtype=dtype) for tensor in kernels.tensors] if wanted.tensors else None,
    )


def sums_with_gradients(
    kernels: Trained, block: Block, limits: Sequence[tuple[Limits, ...]], *, wanted: Wanted, side: int
) -> list[Sums]:
    """Return the sum of kernels over a block of pairs for each choice of limits. Equal choices are computed once.

    Args:
        kernels: the kernels.
        block: the pairs.
        limits: the choices, each with limits of the squared distance for every kernel of the distance.
        wanted: which gradients to return.
        side: number of rows and columns of a tile.

    Raises:
        UnknownTensorError: if the kernels depend on a tensor that requires gradients and is not in `kernels`.
    """
    choices = list(dict.fromkeys(limits))
    if kernels.radial:
        sums = _radial_sums(kernels, block, choices, wanted, side)
    else:
        sums = [zeros(kernels, block, wanted) for _ in choices]
    if kernels.others and choices:
        for more in sums:
            _add_others(kernels, block, more, side)
    return [sums[choices.index(choice)] for choice in limits]


def _radial_sums(
    kernels: Trained, block: Block, choices: Sequence[tuple[Limits, ...]], wanted: Wanted, side: int
) -> list[Sums]:
    ways = ways_of_distances(block.a, block.b, worst_conditioning(kernels.radial, block.a), None)
    found = (_sums_of_distances(kernels, block, choices, wanted, side, distances) for distances in ways)
    return next(sums for sums in found if sums is not None)  # the last way is always precise


def _sums_of_distances(
    kernels: Trained,
    block: Block,
    choices: Sequence[tuple[Limits, ...]],
    wanted: Wanted,
    side: int,
    distances: TileDistances,
) -> list[Sums] | None:
    """Return the sums for distances that are computed in some way, or None if it turns out not to be precise enough."""
    stand_ins = trained_tensors.stand_ins_of(kernels.tensors)
    sums = [zeros(kernels, block, Wanted(False, False, wanted.tensors)) for _ in choices]
    pulls = [_pulls(distances, block, wanted) for _ in choices]
    for rows, columns in tiles(block, side):
        sq_dist = distances.of(rows, columns)
        diagonal = block.meets_diagonal(rows, columns)
        equal = block.diagonal(sq_dist, rows, columns) if diagonal and block.same else None
        is_precise, near = distances.repair(sq_dist, rows, columns, equal)
        if not is_precise or not distances.are_precise(sq_dist, zeros=0 if equal is None else len(equal)):
            return None
        twice = block.symmetric and rows != columns  # the tile below the diagonal is the transpose of this one
        counted = None
        if diagonal and block.distinct:
            counted = torch.ones_like(sq_dist, dtype=block.a.dtype)
            block.diagonal(counted, rows, columns).zero_()
        for choice, found, (to_a, to_b) in zip(choices, sums, pulls, strict=True):
            tile = _evaluated(kernels, stand_ins, sq_dist, choice, counted, wanted, block.a.dtype)
            times = 2 if twice else 1
            found.total.add_(tile.total, alpha=times)
            for mine, step in zip(found.to_tensors or (), tile.steps, strict=True):
                mine.add_(step, alpha=times)
            if tile.slope is None:
                continue
            slope = tile.slope.to(distances.a.dtype)
            own = None if near is None else near.taken_from_(slope)
            if to_a is not None:
                to_a.add(rows, columns, slope, tile.rate, near=near, apart=own)
            if to_b is not None and (twice or not block.symmetric):
                to_b.add(columns, rows, slope.T, tile.rate, near=near and near.transposed(), apart=own)
    factor = 4.0 if block.symmetric else 2.0  # a pair within a set counts in both orders
    dtype = block.a.dtype
    return [
        found._replace(
            to_a=None if to_a is None else to_a.result(factor).to(dtype),
            to_b=None if to_b is None or block.symmetric else to_b.result(factor).to(dtype),
        )
        for found, (to_a, to_b) in zip(sums, pulls, strict=True)
    ]


class _Tile(NamedTuple):
    """A tile of a Gram matrix.

    Attributes:
        total: the sum of its values.
        slope: the derivatives with respect to the squared distances, over `rate`; None if they are not wanted.
        rate: a factor.
        steps: the derivatives of the sum with respect to the tensors of the kernels, if they are wanted.
    """

    total: Tensor
    slope: Tensor | None
    rate: float
    steps: Sequence[Tensor]


def _evaluated(
    kernels: Trained,
    stand_ins: Sequence[Tensor],
    sq_dist: Tensor,
    choice: tuple[Limits, ...],
    counted: Tensor | None,
    wanted: Wanted,
    dtype: torch.dtype,
) -> _Tile:
    """Evaluate the kernels of the distance at the pairs of a tile.

    Args:
        kernels: the kernels.
        stand_ins: for their tensors.
        sq_dist: the squared distances, in the dtype of the scores or in float64.
        choice: limits for each kernel.
        counted: one for each pair that counts and zero for the others; None if all count.
        wanted: which gradients to return.
        dtype: dtype of the scores, in which kernels of users take the distances.
    """
    by_hand: list[RadialSummand] = []
    others: list[tuple[RadialSummand, Limits]] = []
    for summand, limits in zip(kernels.radial, choice, strict=True):
        if (
            counted is None
            and limits == UNBOUNDED
            and any(wanted)
            and _has_steps(summand, kernels.tensors, sq_dist.device)
        ):
            by_hand.append(summand)
        else:
            others.append((summand, limits))
    tiles = [_evaluated_by_hand(summand, kernels.tensors, sq_dist, wanted) for summand in by_hand]
    if others:
        points = sq_dist.to(dtype)
        tiles.append(_evaluated_by_autograd(others, kernels.tensors, stand_ins, points, counted, wanted))
    if len(tiles) == 1:
        return tiles[0]
    slopes = [tile.slope * tile.rate for tile in tiles if tile.slope is not None]
    return _Tile(
        torch.stack([tile.total for tile in tiles]).sum(),
        reduce(torch.add, slopes) if slopes else None,
        1.0,
        [torch.stack(steps).sum(0) for steps in zip(*[tile.steps for tile in tiles], strict=True)],
    )


def _has_steps(summand: RadialSummand, tensors: Sequence[Tensor], device: torch.device) -> bool:
    """Return whether a kernel knows its derivatives with respect to all tensors that it is trained through."""
    if summand.profile.steps is None:
        return False
    known = {id(tensor) for tensor in tensors}
    return all(id(each) in known and each.device == device for each in _logarithms(summand) if each.requires_grad)


def _logarithms(summand: RadialSummand) -> list[Tensor]:
    return summand.kernel._logarithms()  # type: ignore[operator]


def _evaluated_by_hand(summand: RadialSummand, tensors: Sequence[Tensor], sq_dist: Tensor, wanted: Wanted) -> _Tile:
    factor, profile = summand.factor, summand.profile
    assert profile.steps is not None
    (value, slope, rate), found = profile.steps(sq_dist)
    total = value.sum(1).sum(dtype=total_dtype(value.device)) * factor
    own = {id(tensor): step * factor for tensor, step in zip(_logarithms(summand), found, strict=True)}
    steps = [own.get(id(tensor), torch.zeros_like(tensor)) for tensor in tensors] if wanted.tensors else []
    return _Tile(total, slope if wanted.a or wanted.b else None, rate * factor, steps)


def _evaluated_by_autograd(
    summands: Sequence[tuple[RadialSummand, Limits]],
    tensors: Sequence[Tensor],
    stand_ins: Sequence[Tensor],
    sq_dist: Tensor,
    counted: Tensor | None,
    wanted: Wanted,
) -> _Tile:
    points = sq_dist.detach().requires_grad_()
    with torch.set_grad_enabled(any(wanted)), trained_tensors.replaced(tensors, stand_ins):
        parts = [each.factor * each.profile.value(_within(points, limits)) for each, limits in summands]
        values = reduce(torch.add, parts).to(points.dtype)
    detached = values.detach() if counted is None else values.detach() * counted
    total = detached.sum(1).sum(dtype=total_dtype(values.device))
    if not values.requires_grad:
        return _Tile(total, None, 1.0, [torch.zeros_like(tensor) for tensor in tensors] if wanted.tensors else [])
    needed = [wanted.a or wanted.b, *[wanted.tensors] * len(stand_ins)]
    found = _gradients(values, counted, [points, *stand_ins], needed)
    return _Tile(total, found.pop(0) if needed[0] else None, 1.0, found)


def _within(points: Tensor, limits: Limits) -> Tensor:
    """Return squared distances within limits, with a gradient where they are not outside."""
    if limits == UNBOUNDED:
        return points
    outside = (points < limits[0]) | (points > limits[1])
    return torch.where(outside, points.detach().clamp(*limits), points)


def _gradients(
    values: Tensor, counted: Tensor | None, leaves: Sequence[Tensor], wanted: Sequence[bool]
) -> list[Tensor]:
    if not trained_tensors.depends_only_on(values, leaves):
        raise trained_tensors.UnknownTensorError
    chosen = [leaf for leaf, want in zip(leaves, wanted, strict=True) if want]
    weights = values.new_ones(()).expand_as(values) if counted is None else counted.to(values.dtype)
    if not any(leaf.dtype == torch.float16 for leaf in chosen):
        return list(torch.autograd.grad(values, chosen, weights, materialize_grads=True))
    # A sum over a tile could overflow in float16. A factor that is a power of two rounds nothing.
    for power in FLOAT16_SUMS:
        unit = 2.0 ** (power - values.numel().bit_length())
        found = torch.autograd.grad(values, chosen, weights * unit, retain_graph=True, materialize_grads=True)
        if all(bool(gradient.isfinite().all()) for gradient in found):
            break
    return [gradient.to(total_dtype(gradient.device)) / unit for gradient in found]


def _add_others(kernels: Trained, block: Block, sums: Sums, side: int) -> None:
    """Add the sum of the kernels that are not functions of the distance."""
    stand_ins = trained_tensors.stand_ins_of(kernels.tensors)
    for rows, columns in tiles(block, side):
        places = [(block.a[rows], sums.to_a, rows)]
        if not (block.symmetric and rows == columns):
            places.append((block.b[columns], sums.to_a if block.symmetric else sums.to_b, columns))
        times = len(places) if block.symmetric else 1  # the tile below the diagonal is the transpose
        scores = [x.detach().requires_grad_() for x, _, _ in places]
        targets = [(target[place] if target is not None else None) for _, target, place in places]
        targets += sums.to_tensors or [None] * len(stand_ins)
        wanted = [target is not None for target in targets]
        with torch.set_grad_enabled(any(wanted)), trained_tensors.replaced(kernels.tensors, stand_ins):
            a, b = Sample(scores[0]), Sample(scores[-1])
            b = a if len(scores) == 1 else b
            grams = [summand.factor * summand.function.values(a, b) for summand in kernels.others]
            gram = reduce(torch.add, grams)
        counted, values = None, gram.detach()
        if block.distinct and block.meets_diagonal(rows, columns):
            counted = torch.ones_like(values)
            block.diagonal(counted, rows, columns).zero_()
            values = values * counted
        sums.total.add_(values.sum(1).sum(dtype=sums.total.dtype), alpha=times)
        if gram.requires_grad:
            found = iter(_gradients(gram, counted, [*scores, *stand_ins], wanted))
            for target in targets:
                if target is not None:
                    target.add_(next(found), alpha=times)


def _pulls(distances: TileDistances, block: Block, wanted: Wanted) -> tuple[HalfGradient | None, HalfGradient | None]:
    """Return the accumulators of the gradients with respect to rows and columns, one for both if they are the same."""
    to_a = HalfGradient(distances.a, distances.b, distances.far) if wanted.a else None
    if block.symmetric:
        return to_a, to_a
    return to_a, HalfGradient(distances.b, distances.a, distances.far) if wanted.b else None
