"""Sums over samples at each point, and their gradients, tile by tile.

A tile is a few hundred points and samples of one group, or many whole small groups. Matrices are never larger than a
tile, so memory grows with the numbers of points and samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from torch_mmd_losses.distances import Pairs, Sample
from torch_mmd_losses.kernels.contract import ValueAndSlope
from torch_mmd_losses.pairs.group_pairs import GroupPairs
from torch_mmd_losses.pairs.pair_functions import Indices, KernelValues, OfDistance, PairFunction, Tile
from torch_mmd_losses.pairs.repaired_distances import Use, ways_of_repaired_distances
from torch_mmd_losses.pairs.tile_distances import NearPairs, TileDistances, differences_weighted
from torch_mmd_losses.pairs.tiles import tile_side
from torch_mmd_losses.precision import total_dtype

NARROW_UP_TO = 2**13
"""Number of samples up to which weighted sums of them are added up in the dtype of a tile: a few dozen tiles."""

TOGETHER_FROM = 8
"""Number of groups in a tile from which one evaluation for all, with float64 distances, is faster than one for each."""


class Visitor(Protocol):
    """An object that visits the tiles of a call and keeps sums."""

    def visit(self, sq_dist: Tensor, tile: Tile, meets: bool, near: NearPairs | None) -> None:
        """Add a tile.

        Args:
            sq_dist: its squared distances, which may be overwritten.
            tile: its place.
            meets: whether it has equal indices.
            near: its near pairs, whose displacements have to be computed from their differences.
        """


Kept = TypeVar("Kept", bound=Visitor)


def visit_distances(
    points: Tensor,
    samples: Tensor,
    function: OfDistance,
    indices: Indices,
    start: Callable[[TileDistances, slice], Kept],
    use: Use,
) -> list[Kept]:
    """Visit all squared distances, and return the visitor of each part of the groups.

    Args:
        points: `(g, p, d)`.
        samples: `(g, n, d)`, or `points`.
        function: the function of the distances, whose conditioning decides how precise they are.
        indices: properties of the pairs of equal index.
        start: returns a new visitor for a way to compute the distances of some groups. If the way turns out not to be
            precise enough, this visitor is dropped.
        use: the use of the function.
    """
    side, found = tile_side(None, points.device), []
    for groups in _parts(points, samples, side):
        x = points[groups]
        y = x if samples is points else samples[groups]
        whole = max(x.shape[1], y.shape[1]) <= side
        for distances in ways_of_repaired_distances(x, y, function, use, whole=whole):  # pragma: no branch
            visitor = start(distances, groups)
            for tile in _tiles(groups, x.shape[1], y.shape[1], side):
                sq_dist = distances.of(tile.rows, tile.columns)
                equal = indices.in_(sq_dist, tile) if indices.meet(tile) else None
                is_precise, near = distances.repair(sq_dist, tile.rows, tile.columns, equal)
                if not is_precise:
                    break  # start anew, more precisely
                visitor.visit(sq_dist, tile, equal is not None, near)
            else:
                found.append(visitor)
                break
    return found


def _parts(points: Tensor, samples: Tensor, side: int) -> Iterator[slice]:
    """Yield as many groups at a time as fit into a tile.

    The precision of the distances is chosen for these groups together. With a number that is not finite the choice
    would fail, so the groups are then processed one by one.
    """
    (count, p), n = points.shape[:2], samples.shape[1]
    step = max(1, side**2 // (p * n))
    if count > 1 and step > 1 and points.is_cpu and not (_are_finite(points) and _are_finite(samples)):
        step = 1
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _are_finite(scores: Tensor) -> bool:
    # A sum is faster than a mask. It may overflow.
    return math.isfinite(float(scores.detach().sum())) or bool(scores.isfinite().all())


def _tiles(groups: slice, p: int, n: int, side: int) -> Iterator[Tile]:
    for row in range(0, p, side):
        for column in range(0, n, side):
            yield Tile(groups, slice(row, min(row + side, p)), slice(column, min(column + side, n)))


def tiles_of_groups(points: Tensor, samples: Tensor, *, together: bool) -> Iterator[Tile]:
    """Yield the tiles of all groups, of one group after the other, or of many small groups at a time if `together`."""
    side, (count, p), n = tile_side(None, points.device), points.shape[:2], samples.shape[1]
    step = side**2 // (p * n)
    if not together or step < TOGETHER_FROM:
        step = 1
    for start in range(0, count, step):
        yield from _tiles(slice(start, min(start + step, count)), p, n, side)


class Sums:
    """Sums over samples of the values of pairs times coefficients of the samples.

    Args:
        distances: the way in which distances are computed.
        coefficients: `(g, n, c)`.
        function: the values.
        indices: properties of the pairs of equal index.
        dtype: dtype of the scores.
    """

    def __init__(
        self,
        distances: TileDistances,
        coefficients: Tensor,
        function: PairFunction,
        indices: Indices,
        dtype: torch.dtype,
    ) -> None:
        a = distances.a
        self.function, self.indices, self.dtype = function, indices, dtype
        self.coefficients = coefficients.to(a.dtype)
        self.total = a.new_zeros(*a.shape[:2], coefficients.shape[2], dtype=total_dtype(a.device))

    def visit(self, sq_dist: Tensor, tile: Tile, meets: bool, near: NearPairs | None) -> None:
        """Add a tile."""
        values = self.function.values(sq_dist, tile, self.dtype).contiguous()
        if meets and self.indices.distinct:
            self.indices.in_(values, tile).zero_()
        self.total[:, tile.rows].add_(values @ self.coefficients[:, tile.columns])


class Moments:
    """Sums over samples of the values of pairs, and of the samples weighted by them.

    Args:
        distances: the way in which distances are computed.
        samples: `(g, n, d)`.
        weights: weights of the samples `(g, n)`, or None for ones.
        function: the values.
        indices: properties of the pairs of equal index.
        into: tensors `(g, p)` and `(g, p, d)` of zeros in the dtype of the scores, to which the sums are written.
    """

    def __init__(
        self,
        distances: TileDistances,
        samples: Tensor,
        weights: Tensor | None,
        function: PairFunction,
        indices: Indices,
        into: tuple[Tensor, Tensor],
    ) -> None:
        a = distances.a
        self.function, self.indices, self.dtype, self.into = function, indices, samples.dtype, into
        self.samples, self.weights = samples.to(a.dtype), None
        if weights is not None:
            self.weights = weights.to(a.dtype).unsqueeze(-1)
            self.samples = self.samples * self.weights
        self.sums: list[Tensor] = []

    def visit(self, sq_dist: Tensor, tile: Tile, meets: bool, near: NearPairs | None) -> None:
        """Add a tile."""
        values = self.function.values(sq_dist, tile, self.dtype).contiguous()
        if meets and self.indices.distinct:
            self.indices.in_(values, tile).zero_()
        columns, weights = tile.columns, self.weights
        mass = values.sum(-1) if weights is None else (values @ weights[:, columns]).squeeze(-1)
        moment, n = values @ self.samples[:, columns], self.samples.shape[1]
        if columns.start or columns.stop < n:
            wide = total_dtype(mass.device)
            mass = mass.to(wide)
            moment = moment if n <= NARROW_UP_TO else moment.to(wide)
            for more, total in zip((mass, moment), self.sums, strict=False):
                more.add_(total)
        self.sums = [mass, moment] if columns.stop < n else []
        if columns.stop == n:
            for target, found in zip(self.into, (mass, moment), strict=True):
                target[:, tile.rows] = found


class Gradients:
    """The gradients of `<outer, sums>`.

    Args:
        distances: the way in which distances are computed.
        coefficients: `(g, n, c)`.
        outer: `(g, p, c)`.
        function: the values.
        indices: properties of the pairs of equal index.
        dtype: dtype of the scores.
        wanted: whether gradients with respect to points, samples and coefficients are wanted.
    """

    def __init__(
        self,
        distances: TileDistances,
        coefficients: Tensor,
        outer: Tensor,
        function: KernelValues,
        indices: Indices,
        dtype: torch.dtype,
        wanted: Sequence[bool],
    ) -> None:
        x, y = distances.a, distances.b
        self.x, self.y, self.far = x, y, distances.far
        self.function, self.indices, self.dtype = function, indices, dtype
        self.coefficients, self.outer = coefficients.to(x.dtype), outer.to(x.dtype)
        kept = [
            torch.zeros_like(like, dtype=total_dtype(x.device)) if want else None
            for like, want in zip((x, y, coefficients), wanted, strict=True)
        ]
        self.to_points, self.to_samples, self.to_coefficients = kept

    def visit(self, sq_dist: Tensor, tile: Tile, meets: bool, near: NearPairs | None) -> None:
        """Add a tile."""
        rows, columns = tile.rows, tile.columns
        value, slope, rate = self._mapped(sq_dist, tile, meets)
        outer, coefficients = self.outer[:, rows], self.coefficients[:, columns]
        if self.to_coefficients is not None:
            self.to_coefficients[:, columns].add_(value.mT @ outer)
        if self.to_points is None and self.to_samples is None:
            return
        weights, x, y = (outer @ coefficients.mT).mul_(slope), self.x[:, rows], self.y[:, columns]
        if meets and self.indices.same:
            self.indices.in_(weights, tile).zero_()  # no displacement, and no rounding of one
        apart = None if near is None else weights[near.places]
        for target, own, pairs, tensors in (
            (self.to_points, rows, near, (weights, x, y)),
            (self.to_samples, columns, near and near.transposed(), (weights.mT, y, x)),
        ):
            if target is not None:
                target[:, own].add_(displacements(*tensors, self.far, pairs, apart), alpha=-2 * rate)

    def _mapped(self, sq_dist: Tensor, tile: Tile, meets: bool) -> ValueAndSlope:
        mapped = self.function.values_and_slopes(sq_dist, tile, self.dtype)
        if meets and self.indices.distinct:
            for matrix in mapped[:2]:
                self.indices.in_(matrix, tile).zero_()
        return mapped


def displacements(
    weights: Tensor, x: Tensor, y: Tensor, far: bool, near: NearPairs | None = None, apart: Tensor | None = None
) -> Tensor:
    """Return the sums `(..., m, d)` of `weights[i, j] * (y[j] - x[i])` over `j`.

    Args:
        weights: `(..., m, n)`. The weights of near pairs are overwritten.
        x: `(..., m, d)`, around the centre of both sets unless `far`.
        y: `(..., n, d)`, likewise.
        far: sum up differences.
        near: pairs whose differences are given.
        apart: the weights of these pairs `(k,)`, if they have been overwritten.
    """
    if far:
        return differences_weighted(weights, x, y)
    if near is None:
        return (weights @ y).addcmul_(weights.sum(-1, keepdim=True), x, value=-1)
    own = weights[near.places] if apart is None else apart
    weights[near.places] = 0.0
    found = displacements(weights, x, y, far=False)
    steps = (own.unsqueeze(-1) * near.differences).to(found.dtype)
    return found.index_put_(near.places[:-1], steps, accumulate=True)


TileScalar = Callable[[Sequence[Tensor], Sequence[Tensor], Tile], Tensor]
"""Returns a number for a tile, given the rows of the tensors for points and for samples in its groups."""


def add_gradients(
    scalar: TileScalar,
    of_points: Sequence[Tensor],
    of_samples: Sequence[Tensor],
    to_points: Sequence[Tensor | None],
    to_samples: Sequence[Tensor | None],
    *,
    together: bool,
) -> None:
    """Add the gradients of a sum over tiles, by autograd within each tile.

    Args:
        scalar: the summand.
        of_points: tensors `(g, p, ...)`, such as the points.
        of_samples: tensors `(g, n, ...)`, such as the samples.
        to_points: for each of `of_points` the tensor to add its gradient to, or None.
        to_samples: the same for `of_samples`.
        together: whether a tile may have several groups.
    """
    targets = [*to_points, *to_samples]
    for tile in tiles_of_groups(of_points[0], of_samples[0], together=together):
        places = [(tile.groups, tile.rows)] * len(of_points) + [(tile.groups, tile.columns)] * len(of_samples)
        with torch.enable_grad():
            leaves = [
                tensor[place].detach().requires_grad_()
                for tensor, place in zip((*of_points, *of_samples), places, strict=True)
            ]
            value = scalar(leaves[: len(of_points)], leaves[len(of_points) :], tile)
        wanted = [leaf for leaf, target in zip(leaves, targets, strict=True) if target is not None]
        found = iter(torch.autograd.grad(value, wanted, materialize_grads=True))
        for target, place in zip(targets, places, strict=True):
            if target is not None:
                target[place].add_(next(found))


def values_of_tile(function: PairFunction, indices: Indices, x: Tensor, y: Tensor, tile: Tile) -> Tensor:
    """Return the values of a tile `(g, p, n)`, by operations that autograd follows.

    Args:
        function: the values.
        indices: properties of the pairs of equal index.
        x: points `(g, p, d)` of the tile; several groups only if the function takes them.
        y: samples `(g, n, d)` of the tile.
        tile: the place of the tile.
    """
    meets = indices.meet(tile)
    shift = tile.rows.start - tile.columns.start
    kind, a, b = (Pairs, x[0], y[0]) if len(x) == 1 else (GroupPairs, x, y)
    pairs = kind(Sample(a), Sample(b), distinct=meets, same=meets, shift=shift)
    values = function.of_pairs(pairs, tile).reshape(len(x), *pairs.shape)
    if not (meets and indices.distinct):
        return values
    left_out = torch.zeros(pairs.shape, dtype=torch.bool, device=values.device)
    indices.in_(left_out, tile).fill_(True)
    return values.masked_fill(left_out, 0)
