"""Affinities of pairs: kernel values whose logarithm is shifted by a number for each point and for each sample."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torch_mmd_losses.distances import Pairs
from torch_mmd_losses.fields import column_distances
from torch_mmd_losses.fields.log_kernels import LogKernel
from torch_mmd_losses.kernels.contract import Conditioning
from torch_mmd_losses.pairs.pair_functions import Indices, Tile


class Affinity:
    """`exp(log k(x_i, y_j) - a_i - b_j)`, as a function of pairs.

    Args:
        log: the logarithm of the kernel.
        of_points: the shifts `(g, p)`, constants to autograd.
        of_samples: the shifts `(g, n)`, likewise, or None for zeros.
        points_and_samples: `(g, p, d)` and `(g, n, d)`, for kernels of some columns.
    """

    factor: float | None = None
    takes_groups = True

    def __init__(
        self,
        log: LogKernel,
        of_points: Tensor,
        of_samples: Tensor | None = None,
        points_and_samples: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.log, self.of_points, self.of_samples = log, of_points.detach(), None
        self.in_tile = log.in_tiles(points_and_samples)
        if of_samples is not None:
            self.of_samples = of_samples.detach()

    def conditioning(self, like: Tensor) -> Conditioning:
        """Return the conditioning of the kernel."""
        return self.log.conditioning(like)

    def near(self, like: Tensor, error: float) -> float:
        """Return infinity: logarithms are taken in float64."""
        return math.inf

    def values(self, sq_dist: Tensor, tile: Tile, dtype: torch.dtype) -> Tensor:
        """Return the affinities in a tile."""
        return self._shifted(self.in_tile(sq_dist, tile), tile).exp_()

    def of_pairs(self, pairs: Pairs, tile: Tile) -> Tensor:
        """Return the affinities in a tile, by operations that autograd follows."""
        logarithms = self.log.of(column_distances.of_pairs(pairs, self.log.conditioning))
        return self._shifted(logarithms, tile).exp()

    def of_all(self, points: Tensor, samples: Tensor, indices: Indices) -> Tensor:
        """Return the affinities of all pairs, by operations that autograd follows."""
        everything = Tile(slice(None), slice(None), slice(None))
        logarithms = self.log.of(column_distances.of_all(points, samples, indices))
        return self._shifted(logarithms, everything).exp()

    def _shifted(self, logarithms: Tensor, tile: Tile) -> Tensor:
        shifted = logarithms - self.of_points[tile.groups, tile.rows].unsqueeze(-1)
        if self.of_samples is None:
            return shifted
        return shifted - self.of_samples[tile.groups, tile.columns].unsqueeze(-2)
