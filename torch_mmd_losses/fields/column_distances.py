"""Squared distances of the same pairs in all columns, and in some of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from torch_mmd_losses.distances import Pairs, squared_distances
from torch_mmd_losses.kernels.columns import pairs_of_columns, selected
from torch_mmd_losses.kernels.contract import ColumnRange, Conditioning
from torch_mmd_losses.pairs.pair_functions import Indices, OfDistance, Tile, equal_indices
from torch_mmd_losses.pairs.repaired_distances import ways_of_repaired_distances


class PairDistances(NamedTuple):
    """The squared distances of some pairs.

    Attributes:
        sq_dist: those in all columns.
        on: returns those in some columns.
    """

    sq_dist: Tensor
    on: Callable[[Sequence[ColumnRange]], PairDistances]


def of_tile(sq_dist: Tensor, tile: Tile, points: Tensor, samples: Tensor, function: OfDistance) -> PairDistances:
    """Return the distances of a tile, without a graph.

    Args:
        sq_dist: those in all columns.
        tile: its place.
        points: `(g, p, d)`.
        samples: `(g, n, d)`.
        function: the function of the distances that will be evaluated.
    """

    def on(ranges: Sequence[ColumnRange]) -> PairDistances:
        x, y = points[tile.groups, tile.rows].detach(), samples[tile.groups, tile.columns].detach()
        return _of_rows(selected(x, ranges), selected(y, ranges), function)

    return PairDistances(sq_dist, on)


def _of_rows(x: Tensor, y: Tensor, function: OfDistance) -> PairDistances:
    every = slice(None)
    for way in ways_of_repaired_distances(x, y, function, "values", whole=True):  # pragma: no branch
        sq_dist = way.of(every, every)
        is_precise, _ = way.repair(sq_dist, every, every, None)
        if is_precise:
            break
    return PairDistances(sq_dist, lambda ranges: _of_rows(selected(x, ranges), selected(y, ranges), function))


def of_pairs(pairs: Pairs, conditioning: Callable[[Tensor], Conditioning]) -> PairDistances:
    """Return the distances of the pairs of two samples, by operations that autograd follows."""
    sq_dist = pairs.sq_dist(conditioning, by_hand=True)
    return PairDistances(sq_dist, lambda ranges: of_pairs(pairs_of_columns(pairs, ranges), conditioning))


def of_all(points: Tensor, samples: Tensor, indices: Indices) -> PairDistances:
    """Return the distances `(g, p, n)` of all pairs, by operations that autograd follows."""

    def on(ranges: Sequence[ColumnRange]) -> PairDistances:
        return of_all(selected(points, ranges), selected(samples, ranges), indices)

    return PairDistances(all_distances(points, samples, indices), on)


def all_distances(points: Tensor, samples: Tensor, indices: Indices) -> Tensor:
    """Return the squared distances `(g, p, n)` of all pairs, by operations that autograd follows."""
    sq_dist = squared_distances(points, samples)
    if not (indices.same or indices.distinct):
        return sq_dist
    return sq_dist.masked_fill(equal_indices(sq_dist), 0)
