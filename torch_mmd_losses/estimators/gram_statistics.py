"""The mean of a Gram matrix, and what its rows and columns say about the variance of that mean.

All that the variance of an estimate of MMD^2 takes are sums over rows and columns of Gram matrices and the sum of their
squares. Large matrices are visited tile by tile and made again in the backward pass, so that memory, but for one number
for each row of a tile, grows with the number of samples.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from torch_mmd_losses import autograd
from torch_mmd_losses.distances import Pairs, Sample, total_dtype
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.pairs.tiled import Block, side_of_tiles, tiles

LEAST = 3
"""Samples of each group from which the variance can be estimated: two neighbours for each sample."""


class Spread(NamedTuple):
    """The pairs `(a_i, b_j)` of two samples, or the pairs of distinct ones within a sample, in :func:`total_dtype`.

    Attributes:
        mean: mean kernel value, a scalar like all of these but `rows` and `columns`.
        rows: mean kernel value of each `a_i`, `(m,)`.
        columns: mean kernel value of each `b_j`, `(n,)`; the same as `rows` within a sample.
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


def spread(kernel: Kernel, a: Tensor, b: Tensor | None, tile_size: int | None) -> Spread:
    """Return the spread over the pairs of `a` `(m, d)` and `b` `(n, d)`; None is over distinct ones within `a`."""
    symmetric = b is None
    b = a if b is None else b  # which may be the same tensor of both groups, and has all pairs then
    block = Block(a, b, 0, distinct=symmetric, same=symmetric, symmetric=symmetric)
    size = side_of_tiles(tile_size, a.device)
    row_sums, column_sums, squares = _sums(kernel, block, size)
    m, n = a.shape[0], b.shape[0]
    in_row, in_column = (n - 1, m - 1) if symmetric else (n, m)
    mean = row_sums.sum() / (m * in_row)
    # The products of two kernel values of the same row are those of all pairs of them without the squares.
    by_row = (row_sums.square().sum() - squares) / (m * in_row * (in_row - 1)) - mean.square()
    by_column = (column_sums.square().sum() - squares) / (n * in_column * (in_column - 1)) - mean.square()
    variance = squares / (m * in_row) - mean.square()
    return Spread(mean, row_sums / in_row, column_sums / in_column, by_row, by_column, variance)


def covariance(p: Tensor, q: Tensor) -> Tensor:
    """Return the covariance of two expected kernel values of a sample, given their estimates from disjoint samples."""
    return (p * q).mean() - p.mean() * q.mean()


def of_u_statistic(first: Tensor, second: Tensor, m: int) -> Tensor:
    """Return the variance of a U-statistic of `m` samples whose kernel `h(v, v')` varies by `second`.

    `first` is the variance of the expectation of `h` given one of its arguments.
    """
    return (4 * (m - 2) * first + 2 * second) / (m * (m - 1))


def _sums(kernel: Kernel, block: Block, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sums of a Gram matrix over columns `(m,)` and over rows `(n,)`, and that of its squares."""
    a, b = block.a, block.b
    rows = list(_zeros(a).split(size))
    columns = rows if block.symmetric else list(_zeros(b).split(size))
    squares = a.new_zeros((), dtype=total_dtype(a.device))
    several = max(a.shape[0], b.shape[0]) > size
    again = several and torch.is_grad_enabled() and autograd.plain_autograd(a, b)
    for own, other in tiles(block, size):
        i, j = own.start // size, other.start // size
        work = partial(_tile, kernel, block.symmetric and i == j)
        found = (
            checkpoint(work, a[own], b[other], use_reentrant=False, preserve_rng_state=False)
            if again
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


def _tile(kernel: Kernel, same: bool, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    gram = kernel._gram(Pairs(Sample(a), Sample(b), "cross", distinct=same, same=same)).to(total_dtype(a.device))
    if same:
        gram = gram - gram.diag().diag()
    return gram.sum(1), gram.sum(0), gram.square().sum()
