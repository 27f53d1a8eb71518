"""Blocks of pairs, and the tiles in which large blocks are visited."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

CPU_TILE = 344
"""Rows and columns of a tile on a CPU: half a megabyte in float32, which stays in the second-level cache of a core."""

GPU_TILE = 4096
"""Rows and columns of a tile on other devices: 64 MB, enough work for a kernel to be worth its launch."""

AT_ONCE = 16
"""Number of tiles that an operator processes at once if several threads share it: 8 MB in float32.

Each thread waits for the others at the start and the end of an operator, for microseconds on an idle machine and for
milliseconds while other processes are busy. Few large operators wait less.
"""

LARGEST_THRESHOLD = 31 * 2**20
"""Bytes of a block from which glibc learns to keep freed memory. It learns from blocks of up to 32 MB."""

MANY_THREADS = 8
"""Least number of threads for which tiles are twice as wide."""

WIDTH_STEP = 8
"""The width of tiles for several threads is a multiple of this number."""


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

    def diagonal(self, tile: Tensor, rows: slice, columns: slice) -> Tensor:
        """Return a view of the pairs of equal index in a tile that contains such pairs."""
        return tile.diagonal(rows.start + self.shift - columns.start)


def tile_side(tile_size: int | None, device: torch.device) -> int:
    """Return the number of rows and columns of a tile: `tile_size`, or the default of the device."""
    return tile_size or (CPU_TILE if device.type == "cpu" else GPU_TILE)


def tiles_at_once(tile_size: int | None, device: torch.device, share: int = 1) -> int:
    """Return how many tiles an operator should take at once, so that each thread of this process has enough to do.

    A single thread takes one tile, which stays in its cache. So do GPUs, and calls with a `tile_size`. Work that keeps
    many matrices in memory takes the number of tiles of other work divided by `share`. Several threads also make the
    allocator keep freed memory.
    """
    if tile_size is not None or device.type != "cpu" or torch.compiler.is_compiling():
        return 1
    if torch.get_num_threads() == 1:
        return 1
    _keep_freed_memory()
    return max(1, AT_ONCE // share)


@functools.cache
def _keep_freed_memory() -> None:
    """Make the allocator of glibc keep freed matrices for the next ones, once for this process.

    By default, glibc returns matrices of several megabytes to the system after each use. The page faults of the next
    matrices take up to a third of the time of a loss. When a block is freed that is larger than all before it, glibc
    raises its thresholds: it then keeps freed blocks of up to that size, and up to twice as many bytes in all, see
    `mallopt(3)`. The block here is never written, so it takes no memory. Other allocators ignore it, and so does glibc
    if the user has set the thresholds.
    """
    np.empty(LARGEST_THRESHOLD, np.uint8)


def tiles(block: Block, side: int, at_once: int = 1, *, merged: bool = False) -> Iterator[tuple[slice, slice]]:
    """Yield the rows and columns of each tile; of a symmetric block, only the tiles on and above the diagonal.

    Tiles on the diagonal of a symmetric block are square. The others are higher than wide if `at_once` is above 1: two
    threads speed up a product with many rows and few columns more than its transpose.

    Args:
        block: the pairs.
        side: number of rows and columns of a tile if `at_once` is 1.
        at_once: the tiles are up to this number of times as large.
        merged: join a tile on the diagonal of a symmetric block with the tile above it. The last rows of the joint tile
            are then a square on the diagonal.
    """
    m, n = block.a.shape[0], block.b.shape[0]
    width = side if at_once == 1 else _even_width(block, side, at_once)
    highest = max(1, at_once * side**2 // width**2)  # in widths
    for column in range(0, n, width):
        columns = slice(column, min(column + width, n))
        stop = m
        if block.symmetric:
            stop = columns.stop if merged else columns.start
        # In a symmetric block, a multiple of the width does not cut a square.
        cells = -(-stop // width)
        height = width * -(-cells // -(-cells // highest)) if cells else width
        for row in range(0, stop, height):
            yield slice(row, min(row + height, stop)), columns
        if block.symmetric and not merged:
            yield columns, columns


def _even_width(block: Block, side: int, at_once: int) -> int:
    """Return a width for which all tiles of a block are about equally wide."""
    m, n = block.a.shape[0], block.b.shape[0]
    # Tiles of a symmetric block are no higher than the block: only wider ones are large enough for many threads.
    widest = side if torch.get_num_threads() < MANY_THREADS or at_once < 8 else 2 * side
    if not block.symmetric or n <= 2 * side:
        # A small symmetric block is one square: its lower half costs less than a second tile.
        widest = max(widest, at_once * side**2 // m)
    width = -(-n // -(-n // widest))
    width += -width % WIDTH_STEP
    # Rows that lie a multiple of a large power of two apart share few places of a cache.
    return min(width + WIDTH_STEP if width % (8 * WIDTH_STEP) == 0 else width, n)
