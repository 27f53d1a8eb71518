"""Repeated visits of the squared distances of the same points and samples."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from torch_mmd_losses.pairs.pair_functions import Indices, OfDistance, Tile
from torch_mmd_losses.pairs.product_tiles import Kept, visit_distances
from torch_mmd_losses.pairs.tile_distances import NearPairs, TileDistances
from torch_mmd_losses.pairs.tiles import tile_side

KEPT_TILES = 32
"""Number of tiles of distances up to which they are kept for the next visit: 30 MB on a CPU."""


class Visits:
    """Repeated visits of squared distances, which are computed once if they are few.

    Args:
        points: `(g, p, d)`.
        samples: `(g, n, d)`, or `points`.
        function: the function of the distances, see :func:`visit_distances`.
        indices: properties of the pairs of equal index.
    """

    def __init__(self, points: Tensor, samples: Tensor, function: OfDistance, indices: Indices) -> None:
        self.points, self.samples, self.function, self.indices = points, samples, function, indices
        self._recorded: list[_Recorded] | None = None

    def visit(self, start: Callable[[TileDistances, slice], Kept]) -> list[Kept]:
        """Visit all distances as :func:`visit_distances` does. Visitors must not overwrite them."""
        pairs = self.points.shape[0] * self.points.shape[1] * self.samples.shape[1]
        if not self.points.is_cpu or pairs > KEPT_TILES * tile_side(None, self.points.device) ** 2:
            return visit_distances(self.points, self.samples, self.function, self.indices, start, "displacements")
        if self._recorded is None:
            self._recorded = visit_distances(
                self.points, self.samples, self.function, self.indices, _Recorded, "displacements"
            )
        found = []
        for part in self._recorded:
            visitor = start(part.distances, part.groups)
            for visited in part.tiles:
                visitor.visit(*visited)
            found.append(visitor)
        return found


class _Recorded:
    """The distances of some groups."""

    def __init__(self, distances: TileDistances, groups: slice) -> None:
        self.distances, self.groups = distances, groups
        self.tiles: list[tuple[Tensor, Tile, bool, NearPairs | None]] = []

    def visit(self, sq_dist: Tensor, tile: Tile, meets: bool, near: NearPairs | None) -> None:
        self.tiles.append((sq_dist, tile, meets, near))
