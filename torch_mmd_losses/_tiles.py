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

from torch_mmd_losses._leaf import Leaf, Limits, Mapped, evaluate
from torch_mmd_losses._pairs import centred, total_dtype


class PairSums(NamedTuple):
    """The sum of kernel values over pairs, and its gradients: of each sample, or none if not asked for."""

    total: Tensor
    gradients: tuple[Tensor, ...]


class _Accumulator:
    """Sums over tiles for one choice of bounds."""

    def __init__(self, a: Tensor, b: Tensor, same: bool, gradients: bool) -> None:
        self.same = same
        self.gradients = gradients
        self.total = torch.zeros((), dtype=total_dtype(a.device), device=a.device)
        if gradients:
            # The gradient of f(|a_i - b_j|^2) is 2 f' (a_i - b_j): sums of f', and of f' b_j, are all it takes.
            self.slopes_a, self.products_a = a.new_zeros(a.shape[0]), torch.zeros_like(a)
            self.slopes_b, self.products_b = (
                (self.slopes_a, self.products_a) if same else (b.new_zeros(b.shape[0]), torch.zeros_like(b))
            )

    def add(self, rows: slice, columns: slice, a: Tensor, b: Tensor, mapped: Mapped) -> None:
        twice = self.same and rows != columns  # the tile below the diagonal is the transpose of this one
        value, slope, rate = mapped
        row_sums = value.sum(1)
        self.total.add_(row_sums.sum(dtype=self.total.dtype), alpha=2 if twice else 1)
        if self.gradients:
            self.slopes_a[rows].add_(row_sums if slope is value else slope.sum(1), alpha=rate)
            self.products_a[rows].addmm_(slope, b[columns], alpha=rate)
            if twice or not self.same:
                self.slopes_b[columns].add_(slope.sum(0), alpha=rate)
                self.products_b[columns].addmm_(slope.T, a[rows], alpha=rate)

    def result(self, a: Tensor, b: Tensor) -> PairSums:
        if not self.gradients:
            return PairSums(self.total, ())
        to_a = (self.slopes_a.unsqueeze(1) * a - self.products_a) * 2
        if self.same:
            return PairSums(self.total, (2 * to_a,))  # a pair within a sample counts in both orders
        return PairSums(self.total, (to_a, (self.slopes_b.unsqueeze(1) * b - self.products_b) * 2))


def pair_sums(
    leaves: Sequence[Leaf],
    a: Tensor,
    b: Tensor | None,
    limits: Sequence[tuple[Limits, ...]],
    *,
    distinct: bool,
    gradients: bool,
    size: int,
) -> list[PairSums]:
    """Return, for each choice of bounds, the sum of the kernel over all pairs of rows of `a` and `b`.

    Args:
        leaves: the kernel.
        a: scores `(m, d)`.
        b: scores `(n, d)`; None for the pairs within `a`.
        limits: choices of bounds, one for each kernel in each.
        distinct: leave out the pairs with `i = j`.
        gradients: also return the gradients.
        size: rows and columns of a tile.
    """
    same = b is None
    a, b = centred(a, a if b is None else b)
    left, right = _factors(a, b)
    accumulators = [_Accumulator(a, b, same, gradients) for _ in limits]
    for rows, columns in tiles(a.shape[0], b.shape[0], same, size):
        sq_dist = (left[rows] @ right[columns].T).clamp_min_(0)
        diagonal = rows == columns
        if same and diagonal:
            sq_dist.fill_diagonal_(0)
        for i, choice in enumerate(limits):
            mapped = evaluate(leaves, sq_dist, choice, keep=i + 1 < len(limits))
            if distinct and diagonal:
                mapped.value.fill_diagonal_(0)
                mapped.slope.fill_diagonal_(0)
            accumulators[i].add(rows, columns, a, b, mapped)
    return [accumulator.result(a, b) for accumulator in accumulators]


def _factors(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return `(m, d + 2)` and `(n, d + 2)` whose product is the matrix of squared distances: no pass to add norms."""
    squares_a, squares_b = a.square().sum(1, keepdim=True), b.square().sum(1, keepdim=True)
    return torch.cat([-2 * a, squares_a, torch.ones_like(squares_a)], 1), torch.cat(
        [b, torch.ones_like(squares_b), squares_b], 1
    )


def tiles(m: int, n: int, same: bool, size: int) -> Iterator[tuple[slice, slice]]:
    """Yield the rows and columns of each tile, within a group only those on and above the diagonal."""
    for row in range(0, m, size):
        for column in range(row if same else 0, n, size):
            yield slice(row, min(row + size, m)), slice(column, min(column + size, n))
