"""Half the gradient of a sum over pairs with respect to the scores in the rows, from sums over tiles."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_mmd_losses.pairs.tile_distances import NearPairs, differences_weighted


class HalfGradient:
    """Half the gradient of a sum of `f(|x_i - y_j|^2)` with respect to `x`.

    This is the sum of `f' (x_i - y_j)` over `j`, which follows from the sums of `f'` and of `f' y_j`.

    Args:
        x: scores `(m, d)`, around the centre of both sets unless `far`.
        y: scores `(n, d)`, likewise.
        far: sum up differences.
    """

    def __init__(self, x: Tensor, y: Tensor, far: bool) -> None:
        self.x, self.y, self.far = x, y, far
        self.slopes, self.products = x.new_zeros(x.shape[0]), torch.zeros_like(x)

    def add(
        self,
        own: slice,
        other: slice,
        slope: Tensor,
        rate: float,
        *,
        sums: Tensor | None = None,
        near: NearPairs | None = None,
        apart: Tensor | None = None,
    ) -> None:
        """Add a tile.

        Args:
            own: the rows of the tile.
            other: its columns.
            slope: the derivatives `f'` over `rate`.
            rate: a factor.
            sums: the sums of `slope` over the columns, if they are known.
            near: pairs whose differences are given. Their slopes in the tile are zero.
            apart: the slopes of these pairs, `(k,)`.
        """
        if self.far:
            self.products[own].add_(differences_weighted(slope, self.x[own], self.y[other]), alpha=rate)
            return
        self.slopes[own].add_(slope.sum(1) if sums is None else sums, alpha=rate)
        self.products[own].addmm_(slope, self.y[other], alpha=rate)
        if near is not None and apart is not None:
            steps = apart.unsqueeze(1) * near.differences
            self.products[own].index_add_(0, near.places[0], steps, alpha=rate)

    def result(self, factor: float) -> Tensor:
        """Return `factor` times the sum. Nothing can be added any more."""
        return self.products.addcmul_(self.slopes.unsqueeze(1), self.x, value=-1).mul_(-factor)
