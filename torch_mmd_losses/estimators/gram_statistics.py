"""Effects and interactions in a Gram matrix, for the variance of an estimate of MMD^2.

A kernel value of two samples is the sum of a constant, an effect of each of the two samples and an interaction. The
variance of an estimate of MMD^2 follows from the scatter of the effects and from the interactions. Adding a function of
one sample to the kernel changes neither of them, and does not change MMD^2. For the linear kernel on features with a
large mean, such a function can be far larger than the rest of the kernel value. Most of it is therefore subtracted from
the kernel values first, which keeps them precise.

Gram matrices are evaluated tile by tile, and evaluated again for derivatives, see :mod:`gram_sums`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses import hand_written_gradients
from torch_mmd_losses.distances import Pairs, Sample
from torch_mmd_losses.estimators import gram_sums
from torch_mmd_losses.estimators.gram_sums import Centre, centred_gram
from torch_mmd_losses.kernels.summands import Summand, may_be_constant, sum_of_gram_matrices
from torch_mmd_losses.kernels.trained_tensors import UnknownTensorError
from torch_mmd_losses.pairs.tiles import Block, tile_side, tiles
from torch_mmd_losses.precision import total_dtype

LEAST = 4
"""Smallest sample size for which the variance can be estimated: a Gram matrix of three has no interactions."""

REFERENCE = 64
"""Number of samples whose mean kernel values are subtracted."""


class GramStatistics(NamedTuple):
    """Statistics of the kernel values of all pairs `(a_i, b_j)`, in :func:`total_dtype`.

    The pairs are all pairs of two samples, or all pairs of distinct scores within one sample.

    Attributes:
        mean: mean of `k(a, b) - mean(a) - mean(b) + overall` with means over the reference scores, a scalar.
        rows: effect of each `a_i`, up to a constant, without bias, `(m,)`.
        columns: effect of each `b_j`, likewise, `(n,)`; equal to `rows` within a sample.
        interaction: variance of the interactions, without bias, a scalar >= 0.
    """

    mean: Tensor
    rows: Tensor
    columns: Tensor
    interaction: Tensor


@torch.no_grad()
def centre(summands: Sequence[Summand], reference: Tensor, a: Tensor, b: Tensor, side: int) -> Centre:
    """Return the constants to subtract from the kernel values of `a` `(m, d)` and `b` `(n, d)`.

    The statistics do not depend on them, so they have no gradient.

    Args:
        summands: the kernel.
        reference: scores `(r, d)`, of which up to :data:`REFERENCE` are used.
        a: scores in the rows.
        b: scores in the columns.
        side: number of scores that are evaluated at once.
    """

    def means(scores: Tensor, others: Tensor) -> Tensor:
        parts = (Pairs(Sample(part), Sample(others), distinct=False, same=False) for part in scores.split(side))
        return torch.cat([sum_of_gram_matrices(summands, pairs).mean(1, dtype=dtype) for pairs in parts])

    dtype = total_dtype(a.device)
    chosen, some_a, some_b = (scores[:: -(-len(scores) // REFERENCE)] for scores in (reference, a, b))
    rows = means(a, chosen)
    columns = rows if b is a else means(b, chosen)
    rest = means(some_a, some_b).mean() - means(some_a, chosen).mean() - means(some_b, chosen).mean()
    return Centre(rows, columns, rest, means(chosen, chosen).mean())


def gram_statistics(
    summands: Sequence[Summand], reference: Tensor, a: Tensor, b: Tensor | None, tile_size: int | None
) -> GramStatistics:
    """Return the statistics of the pairs of `a` `(m, d)` and `b` `(n, d)`; if `b` is None, of distinct pairs in `a`.

    Only the mean depends on `reference` `(r, d)`: in sums where its effects cancel, use the same one.
    """
    symmetric = b is None
    b = a if b is None else b  # if the caller passes `a` as `b`, all pairs count
    block = Block(a, b, 0, distinct=symmetric, same=symmetric, symmetric=symmetric)
    side = tile_side(tile_size, a.device)
    constants = centre(summands, reference, a, b, side)
    row_sums, column_sums, squares = _sums(summands, block, constants, side)
    m, n = a.shape[0], b.shape[0]
    total, added = row_sums.sum(), constants.rest + constants.overall
    if symmetric:
        # The effect of a row is also in all other rows. This and the interactions are those of the U-centred matrix of
        # Szekely and Rizzo (2014).
        explained = 2 / (m - 2) * row_sums.square().sum() - total.square() / ((m - 1) * (m - 2))
        effects = row_sums / (m - 2)
        interaction = (squares - explained) / (m * (m - 3))
        return GramStatistics(total / (m * (m - 1)) + added, effects, effects, interaction)
    explained = row_sums.square().sum() / n + column_sums.square().sum() / m - total.square() / (m * n)
    interaction = (squares - explained) / ((m - 1) * (n - 1))
    return GramStatistics(total / (m * n) + added, row_sums / n, column_sums / m, interaction)


@torch.no_grad()
def weighted_sums(
    summands: Sequence[Summand], reference: Tensor, a: Tensor, b: Tensor | None, weights: Tensor, tile_size: int | None
) -> Tensor:
    """Return the sum of `weights[j] * k(a_i, b_j)` over `j`, up to a constant, for each `a_i`, `(m,)`.

    Args:
        summands: the kernel.
        reference: see :func:`gram_statistics`.
        a: scores `(m, d)`.
        b: scores `(n, d)`; None for distinct pairs in `a`.
        weights: numbers that sum to zero, `(n,)`, in :func:`total_dtype`.
        tile_size: see :func:`mmd2_and_variance`.
    """
    symmetric = b is None
    b = a if b is None else b
    block = Block(a, b, 0, distinct=symmetric, same=symmetric, symmetric=symmetric)
    side = tile_side(tile_size, a.device)
    constants = centre(summands, reference, a, b, side)
    sums = _zeros(a)
    for own, other in tiles(block, side):
        on_diagonal = symmetric and own == other
        means = constants.rows[own], constants.columns[other], constants.rest
        gram = centred_gram(summands, on_diagonal, a[own], b[other], *means)
        sums[own] += gram @ weights[other]
        if symmetric and not on_diagonal:
            sums[other] += weights[own] @ gram
    return sums


def variance_of_effects(effects: Tensor, errors: Sequence[tuple[GramStatistics, int]]) -> Tensor:
    """Return the variance of effects of single samples, without bias.

    Args:
        effects: sums or differences of the effects of the same samples in several Gram matrices, `(m,)`.
        errors: for each Gram matrix, its statistics and the number of interactions in the error of an effect.
    """
    noise = torch.stack([statistics.interaction / count for statistics, count in errors]).sum()
    return effects.var() - noise


def _sums(summands: Sequence[Summand], block: Block, constants: Centre, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sums of a Gram matrix over its columns `(m,)` and over its rows `(n,)`, and the sum of squares."""
    several = max(block.a.shape[0], block.b.shape[0]) > side
    if several and torch.is_grad_enabled() and hand_written_gradients.reverse_mode_only(block.a, block.b):
        tensors = gram_sums.tensors_of(summands, block.a)
        if tensors is not None:
            with suppress(UnknownTensorError):
                return gram_sums.sums(gram_sums.GramTiles(summands, tensors, block, constants, side))
    return _sums_by_autograd(summands, block, constants, side)


def _sums_by_autograd(
    summands: Sequence[Summand], block: Block, constants: Centre, side: int
) -> tuple[Tensor, Tensor, Tensor]:
    a, b = block.a, block.b
    rows = list(_zeros(a).split(side))
    columns = rows if block.symmetric else list(_zeros(b).split(side))
    squares = a.new_zeros((), dtype=total_dtype(a.device))
    for own, other in tiles(block, side):
        i, j = own.start // side, other.start // side
        means = constants.rows[own], constants.columns[other], constants.rest
        gram = centred_gram(summands, block.symmetric and i == j, a[own], b[other], *means)
        gram = hand_written_gradients.with_graph(gram, a, b, may_lead_elsewhere=may_be_constant(summands))
        rows[i] = rows[i] + gram.sum(1)
        twice = block.symmetric and i != j  # the tile below the diagonal is the transpose of this one
        if twice or not block.symmetric:
            columns[j] = columns[j] + gram.sum(0)
        squares = squares + (2 if twice else 1) * gram.square().sum()
    return torch.cat(rows), torch.cat(columns), squares


def _zeros(scores: Tensor) -> Tensor:
    return scores.new_zeros(scores.shape[0], dtype=total_dtype(scores.device))
