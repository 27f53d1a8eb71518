"""Sums of kernel values over the pairs of real samples, for many divisions of the samples into real and fake.

:func:`exact_sums` computes them in float64. A test of many divisions needs float64 for few of them, see `screening`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses.distances import Pairs, Sample
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.profiles import LOG_2
from torch_mmd_losses.kernels.summands import (
    RadialSummand,
    Summand,
    by_kind,
    common_exponent,
    sum_of_gram_matrices,
    values_and_slopes,
    worst_conditioning,
)
from torch_mmd_losses.pairs.tiles import Block, tiles
from torch_mmd_losses.precision import total_dtype


class GramSums(NamedTuple):
    """Sums over the Gram matrices `K` of `r` kernels, without their diagonals."""

    real_pairs: Tensor
    """Sums `w K w` over the pairs of two real samples, `(r, B + 1)`; `w` is the mask of the real samples."""
    pairs_with_real: Tensor
    """Sums `w K 1` over the pairs of a real sample and any sample, `(r, B + 1)`."""
    all_pairs: Tensor
    """Sums `1 K 1` over all pairs, `(r,)`."""
    row_squares: Tensor
    """Sums of the squares of `K 1`, the sums of the rows, `(r,)`."""
    squares: Tensor
    """Sums of the squared entries, `(r,)`."""


def exact_sums(
    kernels: Sequence[Kernel], pooled: Tensor, labels: Tensor, side: int, needed: Tensor | None = None
) -> GramSums:
    """Return the sums for each row of `labels` `(B + 1, N)`, in :func:`total_dtype`.

    `needed` is a mask `(r, B + 1)`, on the CPU, of the sums over real pairs that are needed. The others are zero.
    """
    real_pairs, rows, squares = (zeros(kernels, pooled, *shape) for shape in ((len(labels),), (len(pooled),), ()))
    summands = [kernel._summands() for kernel in kernels]
    masks = [labels] * len(kernels)
    if needed is not None:
        masks = [labels[of_kernel.nonzero()[:, 0].to(labels.device)] for of_kernel in needed]
    sums = [rows.new_zeros(len(mask)) for mask in masks]
    for own, other in tiles(Block(pooled, pooled, 0, distinct=True, same=True, symmetric=True), side):
        pairs = pairs_of(pooled, own, other, 0.0)
        for i, terms in enumerate(summands):
            gram = above_diagonal(gram_matrix(terms, pairs).to(rows.dtype), own, other)
            add_rows(rows[i], squares[i], own, other, gram)
            left, right = masks[i][:, own].to(gram.dtype), masks[i][:, other].to(gram.dtype)
            sums[i] += 2 * (left @ gram).mul_(right).sum(1)
    for i, found in enumerate(sums):
        real_pairs[i, slice(None) if needed is None else needed[i].to(labels.device)] = found
    return GramSums(real_pairs, over_real(rows, labels, side), rows.sum(1), rows.square().sum(1), squares)


def zeros(kernels: Sequence[Kernel], pooled: Tensor, *shape: int) -> Tensor:
    """Return zeros of the given shape for each kernel, in which sums are accumulated."""
    return pooled.new_zeros((len(kernels), *shape), dtype=total_dtype(pooled.device))


def pairs_of(pooled: Tensor, own: slice, other: slice, limit: float) -> Pairs:
    """Return the pairs of a tile, whose distances all kernels share.

    Distances of float32 scores are computed in float32 if the largest squared norm times the steepness of the kernel is
    at most `limit`.
    """
    same = own == other
    return Pairs(Sample(pooled[own]), Sample(pooled[other]), distinct=same, same=same, float32_limit=limit)


def gram_matrix(summands: Sequence[Summand], pairs: Pairs) -> Tensor:
    """Return the Gram matrix without a graph, by the fastest way, which rounds differently from the kernel itself."""
    radial, others = by_kind(summands)
    if others or not all(summand.profile.by_hand for summand in radial):
        return sum_of_gram_matrices(summands, pairs)
    sq_dist = shared_sq_dist(radial, pairs)
    exponent = common_exponent(radial)
    if exponent is not None:
        return (sq_dist * exponent).exp2_()
    return values_and_slopes(radial, sq_dist, None, dtype=pairs.a.scores.dtype, keep=True).value


def shared_sq_dist(summands: Sequence[RadialSummand], pairs: Pairs) -> Tensor:
    """Return the squared distances for kernels of the library, in the dtype of the scores unless that has no room."""
    conditioning = worst_conditioning(summands, pairs.a.scores)
    sq_dist = pairs.sq_dist(lambda _: conditioning, by_hand=True)
    has_room = conditioning.is_moderate and conditioning.steepness < math.inf
    return sq_dist.to(pairs.a.scores.dtype) if has_room else sq_dist


def gaussian_sigma(summands: Sequence[Summand]) -> float | None:
    """Return the bandwidth of a kernel that is one Gaussian without a factor, else None."""
    radial, others = by_kind(summands)
    exponent = None if others else common_exponent(radial)
    return None if exponent is None else float((-0.5 / (LOG_2 * exponent)) ** 0.5)


def centred(gram: Tensor, own: slice, other: slice, effects: Tensor, scale: float) -> Tensor:
    """Return `scale K[i, j] - a[i] - a[j]` for effects `a` `(N,)`, with zeros as in :func:`above_diagonal`."""
    shifts = effects.to(gram.dtype)
    return above_diagonal(torch.add(-shifts[own].unsqueeze(1), gram, alpha=scale).sub_(shifts[other]), own, other)


def uncentred(
    of_centred: Tensor, rows: Tensor, squares: Tensor, effects: Tensor, labels: Tensor, m: int, side: int
) -> GramSums:
    r"""Return the sums over `K`, given the sums over :math:`G_{ij} = K_{ij} - a_i - a_j`.

    Args:
        of_centred: sums `w G w`, `(r, B + 1)`.
        rows: sums `G 1`, `(r, N)`.
        squares: sums of squares, `(r,)`.
        effects: `a`, `(r, N)`.
        labels: the divisions `(B + 1, N)`, each with `m` real samples.
        m: see `labels`.
        side: number of samples whose labels are converted at once.
    """
    size = labels.shape[1]
    all_effects = effects.sum(1, keepdim=True)
    rows_over_real, effects_over_real = over_real(torch.stack([rows, effects]), labels, side)
    of_kernel = rows + (size - 2) * effects + all_effects
    return GramSums(
        real_pairs=of_centred + 2 * (m - 1) * effects_over_real,
        pairs_with_real=rows_over_real + (size - 2) * effects_over_real + m * all_effects,
        all_pairs=of_kernel.sum(1),
        row_squares=of_kernel.square().sum(1),
        squares=squares
        + 4 * (effects * rows).sum(1)
        + 2 * (size - 2) * effects.square().sum(1)
        + 2 * all_effects.squeeze(1).square(),
    )


def above_diagonal(values: Tensor, own: slice, other: slice) -> Tensor:
    """Return the values of a tile with zeros where the pair, or the pair in the other order, is counted elsewhere."""
    return values.triu(1) if own == other else values


def add_rows(rows: Tensor, squares: Tensor, own: slice, other: slice, values: Tensor) -> None:
    """Add the sums of the rows `(N,)`, and of the squares, of a tile in which each pair occurs once."""
    flat = values.flatten()
    squares.add_(flat.dot(flat), alpha=2)
    rows[own].add_(values.sum(1))
    rows[other].add_(values.sum(0))


def over_real(vectors: Tensor, labels: Tensor, side: int) -> Tensor:
    """Return the sums `(..., B + 1)` of `vectors` `(..., N)` over the real samples of each division."""
    parts = zip(vectors.split(side, -1), labels.split(side, 1), strict=True)
    return torch.stack([vector @ part.to(vectors.dtype).T for vector, part in parts]).sum(0)
