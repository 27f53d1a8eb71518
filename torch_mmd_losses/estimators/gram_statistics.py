"""Means and variances over the rows and columns of a Gram matrix.

The variance of an estimate of MMD^2 follows from the sums over rows and columns of Gram matrices and from the sum of
their squares. Large matrices are evaluated tile by tile, and evaluated again in the backward pass. Memory therefore
grows with the number of samples, except for one number for each row of each tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from torch_mmd_losses import autograd
from torch_mmd_losses.distances import Pairs, Sample
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.summands import Summand, sum_of_gram_matrices
from torch_mmd_losses.pairs.tiles import Block, tile_side, tiles
from torch_mmd_losses.precision import total_dtype

LEAST = 3
"""Smallest sample size for which the variance can be estimated: every score needs two others."""


class GramStatistics(NamedTuple):
    """Statistics of the kernel values of all pairs `(a_i, b_j)`, in :func:`total_dtype`.

    The pairs are all pairs of two samples, or all pairs of distinct scores within one sample.

    Attributes:
        mean: mean kernel value. All statistics except `rows` and `columns` are scalars.
        rows: mean kernel value of each `a_i`, `(m,)`.
        columns: mean kernel value of each `b_j`, `(n,)`; equal to `rows` within a sample.
        by_row: variance of the expected kernel value of `a_i`.
        by_column: variance of the expected kernel value of `b_j`.
        variance: variance of the kernel values.
    """

    mean: Tensor
    rows: Tensor
    columns: Tensor
    by_row: Tensor
    by_column: Tensor
    variance: Tensor


def gram_statistics(kernel: Kernel, a: Tensor, b: Tensor | None, tile_size: int | None) -> GramStatistics:
    """Return the statistics of the pairs of `a` `(m, d)` and `b` `(n, d)`; if `b` is None, of distinct pairs in `a`."""
    symmetric = b is None
    b = a if b is None else b  # if the caller passes `a` as `b`, all pairs count
    block = Block(a, b, 0, distinct=symmetric, same=symmetric, symmetric=symmetric)
    row_sums, column_sums, squares = _sums(kernel._summands(), block, tile_side(tile_size, a.device))
    m, n = a.shape[0], b.shape[0]
    in_row, in_column = (n - 1, m - 1) if symmetric else (n, m)
    mean = row_sums.sum() / (m * in_row)
    # Products of two different kernel values in a row: the square of their sum minus the sum of their squares.
    by_row = (row_sums.square().sum() - squares) / (m * in_row * (in_row - 1)) - mean.square()
    by_column = (column_sums.square().sum() - squares) / (n * in_column * (in_column - 1)) - mean.square()
    variance = squares / (m * in_row) - mean.square()
    return GramStatistics(mean, row_sums / in_row, column_sums / in_column, by_row, by_column, variance)


def covariance(p: Tensor, q: Tensor) -> Tensor:
    """Return the covariance of two expected kernel values of a score, whose estimates come from disjoint samples."""
    return (p * q).mean() - p.mean() * q.mean()


def of_u_statistic(first: Tensor, second: Tensor, m: int) -> Tensor:
    """Return the variance of a U-statistic of `m` samples with the kernel `h(v, v')`.

    Args:
        first: variance of the expectation of `h` given one of its arguments.
        second: variance of `h`.
        m: number of samples.
    """
    return (4 * (m - 2) * first + 2 * second) / (m * (m - 1))


def _sums(summands: Sequence[Summand], block: Block, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sums of a Gram matrix over its columns `(m,)` and over its rows `(n,)`, and the sum of squares."""
    a, b = block.a, block.b
    rows = list(_zeros(a).split(side))
    columns = rows if block.symmetric else list(_zeros(b).split(side))
    squares = a.new_zeros((), dtype=total_dtype(a.device))
    several = max(a.shape[0], b.shape[0]) > side
    recompute = several and torch.is_grad_enabled() and autograd.reverse_mode_only(a, b)
    for own, other in tiles(block, side):
        i, j = own.start // side, other.start // side
        work = partial(_tile, summands, block.symmetric and i == j)
        found = (
            checkpoint(work, a[own], b[other], use_reentrant=False, preserve_rng_state=False)
            if recompute
            else work(a[own], b[other])
        )
        rows[i] = rows[i] + found[0]
        twice = block.symmetric and i != j  # the tile below the diagonal is the transpose of this one
        if twice or not block.symmetric:
            columns[j] = columns[j] + found[1]
        squares = squares + (2 if twice else 1) * found[2]
    return torch.cat(rows), torch.cat(columns), squares


def _zeros(scores: Tensor) -> Tensor:
    return scores.new_zeros(scores.shape[0], dtype=total_dtype(scores.device))


def _tile(summands: Sequence[Summand], same: bool, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    pairs = Pairs(Sample(a), Sample(b), distinct=same, same=same)
    gram = sum_of_gram_matrices(summands, pairs).to(total_dtype(a.device))
    if same:
        gram = gram - gram.diag().diag()
    return gram.sum(1), gram.sum(0), gram.square().sum()
