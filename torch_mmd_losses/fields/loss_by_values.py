"""The drifts of the loss of drifting models from affinities without logarithms, where none of their sums underflows.

See `direct.py` for the reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from torch_mmd_losses.fields.direct import are_kept, are_large
from torch_mmd_losses.fields.field_sums import Displacements, joined
from torch_mmd_losses.fields.loss_options import Fields, LossCall, LossOptions
from torch_mmd_losses.fields.sample_sets import SampleSet
from torch_mmd_losses.kernels.profiles import LOG_2
from torch_mmd_losses.pairs.pair_functions import Indices, OfDistance, Tile
from torch_mmd_losses.pairs.product_tiles import visit_distances
from torch_mmd_losses.pairs.repaired_distances import near_in_float32
from torch_mmd_losses.pairs.tile_distances import NearPairs, TileDistances
from torch_mmd_losses.precision import total_dtype


class LossByValues(LossCall):
    """A call of the loss by values, on a CPU."""

    def __init__(self, x: Tensor, sets: Sequence[SampleSet], options: LossOptions) -> None:
        super().__init__(x, sets, options)
        self.narrowest = math.inf  # scale of the narrowest Laplace kernel, once it is known
        self.distances: list[list[_Distances]] = []

    def near(self, like: Tensor, error: float) -> float:
        """Return the squared distance above which affinities, or distances, have a relative error below 1e-5."""
        if self.narrowest == math.inf:
            return error / 2
        return (error / (2 * self.narrowest)) ** 2

    def sums_of_distances(self) -> Tensor:
        """Return the weighted sum over all pairs of each group, `(g,)`."""
        self.distances = [self._measured(each) for each in self.sets]
        return torch.stack([torch.cat([part.total for part in parts]) for parts in self.distances]).sum(0)

    def _measured(self, each: SampleSet) -> list[_Distances]:
        keep = are_kept(self.x, each.samples)

        def start(distances: TileDistances, groups: slice) -> _Distances:
            return _Distances(distances, groups, each.weights[groups], each.indices, self.square, keep)

        return visit_distances(self.x, each.samples, self, each.indices, start, "displacements")

    def fields(self, scale: Tensor) -> list[Fields] | None:
        """Return the fields of each temperature, or None if values underflow.

        Args:
            scale: the unit of distances, `(g, 1, 1)` or `(1, 1, 1)`.
        """
        taus = self.options.temperatures
        self.narrowest = float(scale.amin()) * min(taus)
        rates = [-1 / (scale * (LOG_2 * tau)) for tau in taus]
        visits = [self._visited(each, own, rates) for each, own in zip(self.sets, self.distances, strict=True)]
        rows = [sum(found) for found in zip(*[_together(parts, "rows") for parts in visits], strict=True)]
        columns = [_together(parts, "columns") for parts in visits]
        dtypes = {part.dtype for parts in visits for part in parts}
        for dtype in dtypes:
            if not all(are_large(sums, dtype) for each in (rows, *columns) for sums in each):
                return None
        of_rows = [sums.rsqrt() for sums in rows]
        fields = []
        for each, own, measured in zip(self.sets, columns, self.distances, strict=True):
            affinities = [
                _Affinity(rate, a, sums.rsqrt(), self.options.smallest_affinity)
                for rate, a, sums in zip(rates, of_rows, own, strict=True)
            ]
            fields.append(self._displaced(each, measured, affinities))
        return list(map(list, zip(*fields, strict=True)))

    def _visited(self, each: SampleSet, measured: Sequence[_Distances], rates: Sequence[Tensor]) -> list[_Masses]:
        """Return the sums of values, from the distances that were kept if they are precise enough."""

        def start(distances: TileDistances, groups: slice) -> _Masses:
            own = [rate[groups] if self.options.per_group else rate for rate in rates]
            return _Masses(distances, groups, own, each.indices, self.square)

        if not all(part.kept and part.are_precise(self, self.x) for part in measured):
            for part in measured:
                part.kept.clear()
            return visit_distances(self.x, each.samples, self, each.indices, start, "displacements")
        found = []
        for part in measured:
            visitor = start(part.distances, part.groups)
            for kept in part.kept:
                visitor.add(*kept[:3])
            found.append(visitor)
        return found

    def _displaced(
        self, each: SampleSet, measured: Sequence[_Distances], affinities: Sequence[_Affinity]
    ) -> list[tuple[Tensor, Tensor]]:
        def start(distances: TileDistances, groups: slice) -> Displacements:
            return Displacements(
                distances,
                each.weights[groups],
                affinities,
                each.indices,
                self.x.dtype,
                left_out=self.options.smallest_affinity,
                narrow=True,
            )

        def start_anew(distances: TileDistances, groups: slice) -> _OfSquares:
            return _OfSquares(start(distances, groups), self.square)

        if not all(part.kept for part in measured):
            anew = visit_distances(self.x, each.samples, self, each.indices, start_anew, "displacements")
            return joined([part.visitor.totals for part in anew])
        found = []
        for part in measured:
            visitor = start(part.distances, part.groups)
            for kept in part.kept:
                visitor.visit(*kept)
            found.append(visitor.totals)
        return joined(found)


class _OfSquares:
    """Passes distances on, given their squares."""

    def __init__(self, visitor: Displacements, square: float) -> None:
        self.visitor, self.square = visitor, square

    def visit(self, sq_dist: Tensor, tile: Tile, meets: bool, near: NearPairs | None) -> None:
        """Add a tile."""
        self.visitor.visit(_distances(sq_dist, self.square), tile, meets, near)


def _distances(sq_dist: Tensor, square: float) -> Tensor:
    return sq_dist.clamp_min_(square).sqrt_()


def _together(parts: Sequence[_Masses], name: str) -> list[Tensor]:
    """Return the sums of all groups, for each temperature."""
    return [torch.cat(sums) for sums in zip(*[getattr(part, name) for part in parts], strict=True)]


class _Distances:
    """Weighted sums of the distances of some groups, and the distances themselves if they are few."""

    def __init__(
        self, distances: TileDistances, groups: slice, weights: Tensor, indices: Indices, square: float, keep: bool
    ) -> None:
        self.distances, self.groups, self.indices, self.square, self.keep = distances, groups, indices, square, keep
        self.weights = weights.to(distances.a.dtype).unsqueeze(-1)
        self.total = torch.zeros_like(weights[:, 0], dtype=total_dtype(weights.device))
        self.closest = math.inf
        self.kept: list[tuple[Tensor, Tile, bool, NearPairs | None]] = []

    def visit(self, sq_dist: Tensor, tile: Tile, meets: bool, near: NearPairs | None) -> None:
        """Add a tile."""
        distances = _distances(sq_dist, self.square)
        self.total.add_((distances @ self.weights[:, tile.columns]).sum((-2, -1), dtype=self.total.dtype))
        if not self.keep:
            return
        self.kept.append((distances, tile, meets, near))
        if self.distances.largest < math.inf:  # expanded in float32
            equal = self.indices.in_(distances, tile)
            own = equal.clone()
            if meets:
                equal.fill_(math.inf)
            self.closest = min(self.closest, float(distances.amin()))
            equal.copy_(own)

    def are_precise(self, function: OfDistance, like: Tensor) -> bool:
        """Return whether the kept distances are precise enough for a function that needs more precision than before."""
        largest = self.distances.largest
        return largest == math.inf or self.closest**2 > near_in_float32(function, "displacements", like, largest)


class _Masses:
    """Sums of kernel values of some groups over samples and over points, for each temperature."""

    def __init__(
        self, distances: TileDistances, groups: slice, rates: Sequence[Tensor], indices: Indices, square: float
    ) -> None:
        a, b = distances.a, distances.b
        wide = total_dtype(a.device)
        self.dtype, self.indices, self.square = a.dtype, indices, square
        self.rates = [rate.to(a.dtype) for rate in rates]
        self.rows = [torch.zeros_like(a[..., 0], dtype=wide) for _ in rates]
        self.columns = [torch.zeros_like(b[..., 0], dtype=wide) for _ in rates]

    def visit(self, sq_dist: Tensor, tile: Tile, meets: bool, near: NearPairs | None) -> None:
        """Add a tile."""
        self.add(_distances(sq_dist, self.square), tile, meets)

    def add(self, distances: Tensor, tile: Tile, meets: bool) -> None:
        """Add a tile, given its distances."""
        for rate, rows, columns in zip(self.rates, self.rows, self.columns, strict=True):
            values = (distances * rate).exp2_()
            if meets and self.indices.distinct:
                self.indices.in_(values, tile).zero_()
            rows[:, tile.rows].add_(values.sum(-1))
            columns[:, tile.columns].add_(values.sum(-2))


class _Affinity:
    """The affinities of one temperature, as a function of distances.

    Args:
        rate: factor of the distances, `(1, 1, 1)` or `(g, 1, 1)`.
        of_points: factors `(g, p)`.
        of_samples: factors `(g, n)`.
        smallest: the smallest affinity.
    """

    def __init__(self, rate: Tensor, of_points: Tensor, of_samples: Tensor, smallest: float) -> None:
        self.rate, self.of_points, self.of_samples, self.smallest = rate, of_points, of_samples, smallest

    def values(self, distances: Tensor, tile: Tile, dtype: torch.dtype) -> Tensor:
        """Return the affinities in a tile."""
        own = self.rate if len(self.rate) == 1 else self.rate[tile.groups]
        values = (distances * own.to(distances.dtype)).exp2_()
        values.mul_(self.of_points[tile.groups, tile.rows].unsqueeze(-1).to(values.dtype))
        values.mul_(self.of_samples[tile.groups, tile.columns].unsqueeze(-2).to(values.dtype))
        return values.clamp_min_(self.smallest)
