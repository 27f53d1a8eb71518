"""One pass over the pairs of large samples, tile by tile: sums of kernel values and their gradients.

A tile is a few hundred rows and columns of a Gram matrix that is never there as a whole: one matrix product makes its
squared distances, the kernel maps them, and two more products add its slopes to the gradients. Memory grows with the
number of samples, not of pairs, and tiles within a group are visited once for both of their orders.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses.distances import centred, total_dtype
from torch_mmd_losses.kernels.summands import UNBOUNDED, Leaf, Limits, Mapped, evaluate, exponent, lifted, power_of_two

CPU_TILE = 344
"""Rows and columns of a tile on a CPU: half a megabyte in float32 that stays in the second-level cache of a core."""

GPU_TILE = 4096
"""Rows and columns of a tile elsewhere: enough work for a kernel to be worth its launch, in 64 MB."""


Wanted = tuple[bool, bool]
"""Whether to return the gradients with respect to `a` and to `b`."""


class Block(NamedTuple):
    """Two sets of scores whose pairs are summed up.

    Attributes:
        a: scores `(m, d)`.
        b: scores `(n, d)`.
        shift: `a[i]` and `b[i + shift]` have the same index in their samples.
        distinct: leave out the pairs of equal index.
        same: `a` and `b` are scores of the same samples: those of equal index are at distance zero.
        symmetric: `b` is `a`, so that each pair is there in both orders.
    """

    a: Tensor
    b: Tensor
    shift: int
    distinct: bool
    same: bool
    symmetric: bool

    def meets_diagonal(self, rows: slice, columns: slice) -> bool:
        """Whether a tile has pairs of equal index."""
        return rows.start + self.shift < columns.stop and columns.start < rows.stop + self.shift

    def diagonal(self, tile: Tensor, rows: slice, columns: slice) -> Tensor:
        """Return a view of the pairs of equal index in a tile that has some."""
        return tile.diagonal(rows.start + self.shift - columns.start)


class PairSums(NamedTuple):
    """The sum of kernel values over pairs, and its gradients with respect to `a` and `b`, where they were wanted.

    Of a symmetric block, `to_a` is the gradient and `to_b` is None.
    """

    total: Tensor
    to_a: Tensor | None
    to_b: Tensor | None

    @classmethod
    def zeros(cls, block: Block, wanted: Wanted) -> PairSums:
        """Return sums to add to."""
        return cls(
            torch.zeros((), dtype=total_dtype(block.a.device), device=block.a.device),
            torch.zeros_like(block.a) if wanted[0] else None,
            torch.zeros_like(block.b) if wanted[1] and not block.symmetric else None,
        )

    def add(self, other: PairSums, factor: float) -> None:
        """Add a multiple of other sums over the same pairs."""
        for mine, theirs in zip(self, other, strict=True):
            if mine is not None and theirs is not None:
                mine.add_(theirs, alpha=factor)


def side_of_tiles(given: int | None, device: torch.device) -> int:
    """Return how many rows and columns a tile has."""
    return given or (CPU_TILE if device.type == "cpu" else GPU_TILE)


def tiles(block: Block, size: int) -> Iterator[tuple[slice, slice]]:
    """Yield the rows and columns of each tile, within one set only those on and above the diagonal."""
    m, n = block.a.shape[0], block.b.shape[0]
    for row in range(0, m, size):
        for column in range(row if block.symmetric else 0, n, size):
            yield slice(row, min(row + size, m)), slice(column, min(column + size, n))


def pair_sums(
    leaves: Sequence[Leaf], block: Block, limits: Sequence[tuple[Limits, ...]], *, wanted: Wanted, size: int
) -> list[PairSums]:
    """Return, for each choice of bounds, the sum of a kernel of the distance over all pairs of a block.

    Args:
        leaves: the kernel.
        block: the pairs.
        limits: choices of bounds, one for each kernel in each.
        wanted: which gradients to return.
        size: rows and columns of a tile.
    """
    a, b = centred(block.a, block.a if block.symmetric else block.b)
    alone = len(limits) == 1 and all(limit == UNBOUNDED for limit in limits[0])
    factor = exponent(leaves) if alone else None
    left, right = factors(a, b, factor or 1)
    accumulators = [_Accumulator(a, b, block.symmetric, wanted) for _ in limits]
    for rows, columns in tiles(block, size):
        sq_dist = lifted(left[rows] @ right[columns].T, factor)
        diagonal = block.meets_diagonal(rows, columns)
        if diagonal and block.same:
            block.diagonal(sq_dist, rows, columns).zero_()
        for i, choice in enumerate(limits):
            if factor is None:
                mapped = evaluate(leaves, sq_dist, choice, keep=i + 1 < len(limits))
            else:
                mapped = power_of_two(sq_dist, factor)
            if diagonal and block.distinct:
                for matrix in mapped[:2]:
                    block.diagonal(matrix, rows, columns).zero_()
            accumulators[i].add(rows, columns, mapped)
    return [accumulator.result() for accumulator in accumulators]


class _Accumulator:
    """Sums over tiles for one choice of bounds."""

    def __init__(self, a: Tensor, b: Tensor, symmetric: bool, wanted: Wanted) -> None:
        self.symmetric = symmetric
        self.values = torch.zeros(a.shape[0], dtype=total_dtype(a.device), device=a.device)
        self.to_a = _Gradient(a, b) if wanted[0] else None
        self.to_b = self.to_a if self.symmetric else _Gradient(b, a) if wanted[1] else None

    def add(self, rows: slice, columns: slice, mapped: Mapped) -> None:
        twice = self.symmetric and rows != columns  # the tile below the diagonal is the transpose of this one
        value, slope, rate = mapped
        row_sums = value.sum(1)
        self.values[rows].add_(row_sums, alpha=2 if twice else 1)
        if self.to_a is not None:
            self.to_a.add(rows, columns, slope, row_sums if slope is value else slope.sum(1), rate)
        if self.to_b is not None and (twice or not self.symmetric):
            self.to_b.add(columns, rows, slope.T, slope.sum(0), rate)

    def result(self) -> PairSums:
        factor = 4.0 if self.symmetric else 2.0  # a pair within a set counts in both orders
        to_a = None if self.to_a is None else self.to_a.result(factor)
        to_b = None if self.to_b is None or self.symmetric else self.to_b.result(factor)
        return PairSums(self.values.sum(), to_a, to_b)


class _Gradient:
    """The gradient of sums of `f(|x_i - y_j|^2)` with respect to `x`, half of it.

    It is `f' (x_i - y_j)`: sums of `f'`, and of `f' y_j`, are all that it takes.
    """

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y
        self.slopes, self.products = x.new_zeros(x.shape[0]), torch.zeros_like(x)

    def add(self, own: slice, other: slice, slope: Tensor, sums: Tensor, rate: float) -> None:
        self.slopes[own].add_(sums, alpha=rate)
        self.products[own].addmm_(slope, self.y[other], alpha=rate)

    def result(self, factor: float) -> Tensor:
        return self.products.addcmul_(self.slopes.unsqueeze(1), self.x, value=-1).mul_(-factor)


def factors(a: Tensor, b: Tensor, scale: float = 1) -> tuple[Tensor, Tensor]:
    """Return two factors of `scale` times the squared distances between rows `(..., m, d)` and `(..., n, d)`.

    They are `(..., m, d + 2)` and `(..., n, d + 2)`, and the distances `left @ right.mT`: no pass for norms.
    """
    squares_a, squares_b = a.square().sum(-1, keepdim=True), b.square().sum(-1, keepdim=True)
    left = torch.cat([-2 * scale * a, squares_a, torch.full_like(squares_a, scale)], -1)
    right = torch.cat([b, torch.full_like(squares_b, scale), squares_b], -1)
    return left, right
