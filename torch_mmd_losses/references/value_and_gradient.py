"""Sums of kernel values at points together with their gradients, in one visit of each pair."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import Tensor

from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.pairs.linear_products import without_linear
from torch_mmd_losses.pairs.pair_functions import Indices, KernelValues, Tile
from torch_mmd_losses.pairs.product_tiles import displacements, visit_distances
from torch_mmd_losses.pairs.tile_distances import NearPairs, TileDistances
from torch_mmd_losses.precision import total_dtype

Parts = Callable[[], Iterator[tuple[Tensor, Tensor]]]
"""Returns rows `(m, d)` in parts, each with its weights `(m,)`."""


def is_fast(kernel: Kernel) -> bool:
    """Return whether a kernel is a function of the distance with known slopes, also in a sum with a linear kernel."""
    summands, _ = without_linear(kernel._summands())
    return not KernelValues(summands).others


def values_and_gradients(
    kernel: Kernel, points: Tensor, parts: Iterable[tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Return the sums `(p,)` of `w k(p, r)` over all rows and their gradients `(p, d)`, in :func:`total_dtype`.

    Args:
        kernel: a kernel of the distance, a linear kernel, or a sum of both.
        points: points `(p, d)`.
        parts: the rows and their weights.
    """
    summands, factor = without_linear(kernel._summands())
    function = KernelValues(summands)
    values = torch.zeros(len(points), dtype=total_dtype(points.device), device=points.device)
    gradients = torch.zeros_like(points, dtype=values.dtype)
    for rows, weights in parts:
        if factor is not None:
            total = factor * (weights.to(values.dtype) @ rows.to(values.dtype))
            values += points.to(values.dtype) @ total
            gradients += total
        if not summands:
            continue
        start = partial(_Visitor, weights, function, points.dtype)
        (visitor,) = visit_distances(
            points.unsqueeze(0), rows.unsqueeze(0), function, Indices(distinct=False, same=False), start, "slopes"
        )
        values += visitor.values
        gradients += visitor.gradients
    return values, gradients


class _Visitor:
    def __init__(
        self, weights: Tensor, function: KernelValues, dtype: torch.dtype, distances: TileDistances, groups: slice
    ) -> None:
        self.x, self.y, self.far = distances.a, distances.b, distances.far
        self.weights, self.function, self.dtype = weights.to(self.x.dtype), function, dtype
        self.gradients = torch.zeros_like(self.x[0], dtype=total_dtype(self.x.device))
        self.values = torch.zeros_like(self.gradients[:, 0])

    def visit(self, sq_dist: Tensor, tile: Tile, meets: bool, near: NearPairs | None) -> None:
        """Add a tile."""
        value, slope, rate = self.function.values_and_slopes(sq_dist, tile, self.dtype)
        weights = self.weights[tile.columns]
        self.values[tile.rows].add_(value[0] @ weights)
        pulls = displacements(slope.mul_(weights), self.x[:, tile.rows], self.y[:, tile.columns], self.far, near)
        self.gradients[tile.rows].add_(pulls[0], alpha=-2 * rate)
