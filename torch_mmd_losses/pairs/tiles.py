"""Blocks of pairs, and the tiles in which large blocks are visited."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

CPU_TILE = 344
"""Rows and columns of a tile on a CPU: half a megabyte in float32, which stays in the second-level cache of a core."""

GPU_TILE = 4096
"""Rows and columns of a tile on other devices: 64 MB, enough work for a kernel to be worth its launch."""


class Block(NamedTuple):
    """All pairs of two sets of scores.

    Attributes:
        a: scores `(m, d)`.
        b: scores `(n, d)`.
        shift: `a[i]` and `b[i + shift]` have the same index in their samples.
        distinct: leave out the pairs of equal index.
        same: `a` and `b` are scores of the same sample, so pairs of equal index are at distance zero.
        symmetric: `b` is `a`, so every pair occurs in both orders.
    """

    a: Tensor
    b: Tensor
    shift: int
    distinct: bool
    same: bool
    symmetric: bool

    def meets_diagonal(self, rows: slice, columns: slice) -> bool:
        """Return whether a tile contains pairs of equal index."""
        return rows.start + self.shift < columns.stop and columns.start < rows.stop + self.shift

    def pairs(self) -> int:
        """Return the number of pairs, without those that are left out."""
        m, n = self.a.shape[0], self.b.shape[0]
        return m * n - (max(0, min(m, n - self.shift) - max(0, -self.shift)) if self.distinct else 0)

    def diagonal(self, tile: Tensor, rows: slice, columns: slice) -> Tensor:
        """Return a view of the pairs of equal index in a tile that contains such pairs."""
        return tile.diagonal(rows.start + self.shift - columns.start)


def tile_side(tile_size: int | None, device: torch.device) -> int:
    """Return the number of rows and columns of a tile: `tile_size`, or the default of the device."""
    return tile_size or (CPU_TILE if device.type == "cpu" else GPU_TILE)


def tiles(block: Block, side: int) -> Iterator[tuple[slice, slice]]:
    """Yield the rows and columns of each tile; of a symmetric block, only the tiles on and above the diagonal."""
    m, n = block.a.shape[0], block.b.shape[0]
    for row in range(0, m, side):
        for column in range(row if block.symmetric else 0, n, side):
            yield slice(row, min(row + side, m)), slice(column, min(column + side, n))
