"""Sums of kernel values over the pairs of real samples, for many divisions of the samples into real and fake.

Most of the time of a permutation test goes into matrix products of kernel values and divisions. Only divisions whose
statistic is close to the observed one need these products in float64. :func:`screened_sums` computes the sums of all
divisions from products in low precision, with bounds on the errors. :func:`exact_sums` then computes those sums that
have to be exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses.distances import Pairs, Sample
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.summands import Summand, by_kind, common_exponent, sum_of_gram_matrices
from torch_mmd_losses.pairs.tiles import Block, tiles
from torch_mmd_losses.precision import total_dtype

SCREENED_FROM = 2**17
"""Number of samples times divisions from which screening is faster than products in float64."""

MARGIN = 4 * torch.finfo(torch.bfloat16).eps
"""Bound on the error of a screened sum, relative to the sum and to its standard deviation over all divisions.

Kernel values, their sums over the rows of a tile, and the sums of those are rounded to bfloat16. If single errors are
independent, each rounding causes an error of 0.2 `eps` of the standard deviation (root mean square), so the bound is 11
times the usual error. If samples take few values, the single errors are not independent. Their sum is then proportional
to the screened sum, by a factor of at most 1.5 `eps`. Products in float32 have the same bound, because users can let
PyTorch compute them in TF32 or bfloat16.
"""


class GramSums(NamedTuple):
    """Sums over the Gram matrices `K` of `r` kernels, without their diagonals."""

    real_pairs: Tensor
    """Sums `w K w` over the pairs of two real samples, `(r, B + 1)`; `w` is the mask of the real samples."""
    pairs_with_real: Tensor
    """Sums `w K 1` over the pairs of a real sample and any sample, `(r, B + 1)`."""
    rows: Tensor
    """Sums `K 1` of the rows, `(r, N)`."""
    squares: Tensor
    """Sums of the squared entries, `(r,)`."""


class Tile(NamedTuple):
    """A part of the Gram matrix of a kernel, on or above the diagonal."""

    kernel: int
    own: slice
    other: slice
    gram: Tensor
    """Kernel values of `own` and `other` samples, with zeros on the diagonal of the Gram matrix."""
    copies: int
    """How often the pairs occur: twice off the diagonal, where both orders count."""


def can_screen(kernels: Sequence[Kernel], pooled: Tensor, labels: Tensor) -> bool:
    """Return whether screening is possible on the device, and saves time although the kernels are evaluated twice."""
    # On MPS, there is no more precise dtype for a second pass.
    possible = pooled.device.type != "meta" and total_dtype(pooled.device) == torch.float64
    return possible and labels.numel() >= SCREENED_FROM and 2 * pooled.shape[1] <= len(kernels) * len(labels)


def exact_sums(
    kernels: Sequence[Kernel], pooled: Tensor, labels: Tensor, side: int, needed: Tensor | None = None
) -> GramSums:
    """Return the sums for each row of `labels` `(B + 1, N)`, in :func:`total_dtype`.

    `needed` is a mask `(r, B + 1)`, on the CPU, of the sums over real pairs that are needed. The others are zero.
    """
    real_pairs, rows, squares = (_zeros(kernels, pooled, *shape) for shape in ((len(labels),), (len(pooled),), ()))
    chosen: list[Tensor | slice] = [slice(None)] * len(kernels)
    if needed is not None:
        chosen = [of_kernel.nonzero()[:, 0].to(labels.device) for of_kernel in needed]
    for tile in _gram_tiles(kernels, pooled, side):
        gram = tile.gram.to(rows.dtype)
        _add_rows(rows, squares, tile, gram)
        indices = chosen[tile.kernel]
        left, right = (labels[indices, part].to(gram.dtype) for part in (tile.own, tile.other))
        real_pairs[tile.kernel, indices] += tile.copies * (left @ gram).mul_(right).sum(1)
    return GramSums(real_pairs, _over_real(rows, labels, side), rows, squares)


def screened_sums(
    kernels: Sequence[Kernel], pooled: Tensor, labels: Tensor, m: int, side: int
) -> tuple[GramSums, Tensor]:
    r"""Return the sums for each row of `labels` `(B + 1, N)`, and bounds `(r, B + 1)` on the errors of `real_pairs`.

    Each row has `m` real samples. Only :math:`v^T G v` is computed in low precision, where
    :math:`v = (1 + \rho) w - \rho` and :math:`G_{ij} = K_{ij} - a_i - a_j`. Its errors are small if the means of
    :math:`v` and of each row of :math:`G` are near zero, so :math:`\rho \approx m / n`. For any :math:`\rho` and
    :math:`a`, sums without the diagonal satisfy

    .. math::

        w^T G w = \frac{v^T G v + 2 \rho (1 + \rho) w^T G 1 - \rho^2 1^T G 1}{(1 + \rho)^2}, \qquad
        w^T K w = w^T G w + 2 (m - 1) w^T a.

    The errors of all other sums, and of the real pairs of the first row, are negligible compared with the bounds. Sums
    that are out of the range of float32 are NaN.
    """
    weighted, observed, rows, squares = (
        _zeros(kernels, pooled, *shape) for shape in ((len(labels),), (1,), (len(pooled),), ())
    )
    effects = _effects(kernels, pooled, side)
    # Kernel values are scaled by a power of two, which is exact, so that their squares are in the range of float32.
    scales = torch.ldexp(torch.ones_like(squares), -torch.frexp(effects.abs().amax(1)).exponent)
    effects *= scales.unsqueeze(1)
    shifts, factors = effects.to(pooled.dtype), scales.to(pooled.dtype)
    dtype = _product_dtype(pooled.device)
    ratio = float(torch.tensor(m / (len(pooled) - m), dtype=torch.bfloat16))  # exact in products of low precision
    real_weight, fake_weight = torch.tensor([1.0, -ratio], dtype=dtype, device=pooled.device)
    weights = torch.where(labels.T.contiguous(), real_weight, fake_weight)
    first = weights[:, 0].to(pooled.dtype)
    for tile in _gram_tiles(kernels, pooled, side, _rough_gram_matrix):
        kernel, own, other, gram, copies = tile._replace(gram=tile.gram.to(pooled.dtype))
        centred = torch.addcmul(-shifts[kernel, own].unsqueeze(1), gram, factors[kernel]).sub_(shifts[kernel, other])
        if own == other:
            centred.fill_diagonal_(0)
        _add_rows(rows, squares, tile, centred)
        observed[kernel].add_(first[own] @ centred @ first[other], alpha=copies)
        products = (centred.to(dtype) @ weights[other]).mul_(weights[own])
        weighted[kernel].add_(products.sum(0), alpha=copies)
    error = MARGIN * (weighted.abs() + ratio * (2 * squares).sqrt().unsqueeze(1)) / (1 + ratio) ** 2
    weighted[:, :1], error[:, :1] = observed, 0
    unit = scales.unsqueeze(1)
    sums = _uncentred(weighted / unit, ratio, rows / unit, squares / scales**2, shifts / unit, labels, m, side)
    return sums, error / unit


def _uncentred(
    weighted: Tensor,
    ratio: float,
    rows: Tensor,
    squares: Tensor,
    effects: Tensor,
    labels: Tensor,
    m: int,
    side: int,
) -> GramSums:
    """Return the sums over `K`, given the sums over `G`, see :func:`screened_sums`."""
    size = labels.shape[1]
    all_rows, all_effects = (vectors.sum(1, keepdim=True) for vectors in (rows, effects))
    rows_over_real, effects_over_real = (_over_real(vectors, labels, side) for vectors in (rows, effects))
    of_centred = (weighted + 2 * ratio * (1 + ratio) * rows_over_real - ratio**2 * all_rows) / (1 + ratio) ** 2
    return GramSums(
        real_pairs=of_centred + 2 * (m - 1) * effects_over_real,
        pairs_with_real=rows_over_real + (size - 2) * effects_over_real + m * all_effects,
        rows=rows + (size - 2) * effects + all_effects,
        squares=squares
        + 4 * (effects * rows).sum(1)
        + 2 * (size - 2) * effects.square().sum(1)
        + 2 * all_effects.squeeze(1).square(),
    )


def _zeros(kernels: Sequence[Kernel], pooled: Tensor, *shape: int) -> Tensor:
    return pooled.new_zeros((len(kernels), *shape), dtype=total_dtype(pooled.device))


GramMatrix = Callable[[Sequence[Summand], Pairs], Tensor]


def _gram_tiles(
    kernels: Sequence[Kernel], pooled: Tensor, side: int, gram_matrix: GramMatrix = sum_of_gram_matrices
) -> Iterator[Tile]:
    """Yield the tiles of all kernels, which share the distances of a tile."""
    summands = [kernel._summands() for kernel in kernels]
    for own, other in tiles(Block(pooled, pooled, 0, distinct=True, same=True, symmetric=True), side):
        same = own == other
        pairs = Pairs(Sample(pooled[own]), Sample(pooled[other]), distinct=same, same=same)
        for i, terms in enumerate(summands):
            gram = gram_matrix(terms, pairs)
            if same:
                gram.fill_diagonal_(0)
            yield Tile(i, own, other, gram, 1 if same else 2)


def _rough_gram_matrix(summands: Sequence[Summand], pairs: Pairs) -> Tensor:
    """Return the Gram matrix; of a Gaussian by a power of two, which is faster than `exp` but rounds differently."""
    radial, others = by_kind(summands)
    exponent = None if others else common_exponent(radial)
    if exponent is None:
        return sum_of_gram_matrices(summands, pairs)
    profile = radial[0].profile
    sq_dist = pairs.sq_dist(profile.conditioning, by_hand=profile.by_hand)
    return (sq_dist * exponent).exp2_()


def _effects(kernels: Sequence[Kernel], pooled: Tensor, side: int) -> Tensor:
    """Return `a` `(r, N)` such that `K[i, j] - a[i] - a[j]` has a mean near zero in each row.

    The means are taken over the pairs with the samples of the first tile, since a pass over all pairs would cost more
    than it saves. The order of the samples has to be random.
    """
    summands = [kernel._summands() for kernel in kernels]
    few = pooled[: max(2, side)]
    sums = _zeros(kernels, pooled, len(pooled))
    for start in range(0, len(pooled), side):
        part = slice(start, min(start + side, len(pooled)))
        pairs = Pairs(Sample(pooled[part]), Sample(few), distinct=False, same=False)
        for i, terms in enumerate(summands):
            gram = _rough_gram_matrix(terms, pairs)
            if start < len(few):
                gram.diagonal(start).zero_()
            sums[i, part] = gram.sum(1)
    counts = torch.full_like(sums[0], len(few))
    counts[: len(few)] -= 1
    means = sums / counts
    return means - means[:, : len(few)].mean(1, keepdim=True) / 2


def _product_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 if the device multiplies it faster than float32, else float32."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and torch.backends.mkldnn.is_available() and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def _add_rows(rows: Tensor, squares: Tensor, tile: Tile, values: Tensor) -> None:
    """Add the sums of the rows, and of the squares, of a tile with the given `values`."""
    flat = values.flatten()
    squares[tile.kernel].add_(flat.dot(flat), alpha=tile.copies)
    rows[tile.kernel, tile.own].add_(values.sum(1))
    if tile.own != tile.other:
        rows[tile.kernel, tile.other].add_(values.sum(0))


def _over_real(vectors: Tensor, labels: Tensor, side: int) -> Tensor:
    """Return the sums `(r, B + 1)` of `vectors` `(r, N)` over the real samples of each division."""
    parts = zip(vectors.split(side, 1), labels.split(side, 1), strict=True)
    return torch.stack([vector @ part.to(vectors.dtype).T for vector, part in parts]).sum(0)
