r"""Sums of kernel values over the pairs of real samples for all divisions, by fast products, with bounds on the errors.

Most of the time of a permutation test goes into matrix products of kernel values and divisions. Only divisions whose
statistic is close to the observed one need these products in float64.

Only :math:`v^T G v` is computed in low precision, where :math:`v = (1 + \rho) w - \rho` and
:math:`G_{ij} = K_{ij} - a_i - a_j`. Its errors are small if the means of :math:`v` and of each row of :math:`G` are
near zero, so :math:`\rho \approx m / n`. For any :math:`\rho` and :math:`a`, sums without the diagonal satisfy

.. math::

    w^T G w = \frac{v^T G v + 2 \rho (1 + \rho) w^T G 1 - \rho^2 1^T G 1}{(1 + \rho)^2}, \qquad
    w^T K w = w^T G w + 2 (m - 1) w^T a.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses.distances import Pairs
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.profiles import gaussians_with_slopes
from torch_mmd_losses.kernels.summands import Summand, by_kind
from torch_mmd_losses.precision import total_dtype
from torch_mmd_losses.two_sample import weighted_products
from torch_mmd_losses.two_sample.division_sums import (
    GramSums,
    add_rows,
    centred,
    gaussian_sigma,
    gram_matrix,
    over_real,
    pairs_of,
    shared_sq_dist,
    uncentred,
    zeros,
)
from torch_mmd_losses.two_sample.weighted_products import LOST, Strip, WeightedProducts

SCREENED_FROM = 2**17
"""Least number of samples times divisions for which screening is faster than products in float64."""

FLOAT32_LIMIT = 2.0**10
"""Largest squared norm in a tile times the steepness of a kernel up to which distances are computed in float32.

Kernel values then have a relative error below 2e-4, see :data:`torch_mmd_losses.distances.FLOAT32_LIMIT`.
"""

TILES_AT_ONCE = 12
"""Number of tiles in one matrix product. With more tiles, products are not faster and need more memory."""


def can_screen(kernels: Sequence[Kernel], pooled: Tensor, labels: Tensor) -> bool:
    """Return whether screening is possible on the device, and saves time although the kernels are evaluated twice."""
    # On MPS, there is no more precise dtype for a second pass.
    possible = pooled.device.type != "meta" and total_dtype(pooled.device) == torch.float64
    return possible and labels.numel() >= SCREENED_FROM and 2 * pooled.shape[1] <= len(kernels) * len(labels)


class Screened(NamedTuple):
    """Sums in low precision."""

    sums: GramSums
    """The sums. The errors of all except `real_pairs`, and of the real pairs of the first division, are negligible
    compared with `error`. Sums that are out of the range of float32 are NaN."""
    error: Tensor
    """Bounds `(r, B + 1)` on the errors of `real_pairs`."""


def screened_sums(kernels: Sequence[Kernel], pooled: Tensor, labels: Tensor, m: int, side: int) -> Screened:
    """Return the sums for each row of `labels` `(B + 1, N)`, which has `m` real samples."""
    summands = [kernel._summands() for kernel in kernels]
    effects, samples = _effects(summands, pooled, side)
    groups, scales = _formats(effects, samples, labels, m)
    weighted, observed, rows, squares, lost, ratios, margins = (
        zeros(kernels, pooled, *shape) for shape in ((len(labels),), (1,), (len(pooled),), (), (), (1,), (1,))
    )
    unit = torch.tensor(scales, dtype=effects.dtype, device="cpu").to(pooled.device).unsqueeze(1)
    scaled_effects = (unit * effects).to(pooled.dtype).to(unit.dtype)  # rounded as in the tiles
    effects = scaled_effects / unit
    for group in groups:
        ratios[group.kernels], margins[group.kernels] = group.ratio, group.margin
    first = {i: group.first(pooled.dtype) for group in groups for i in group.kernels}
    for own, columns in _strips(len(pooled), side):
        values = [Strip(group, own, slice(columns[0].start, columns[-1].stop)) for group in groups]
        of_kernel = {i: (strip, j) for strip in values for j, i in enumerate(strip.kernels)}
        for other in columns:
            pairs = pairs_of(pooled, own, other, FLOAT32_LIMIT)
            for i, gram in _grams(summands, pairs):
                tile = centred(gram, own, other, scaled_effects[i], scales[i]).to(pooled.dtype)
                add_rows(rows[i], squares[i], own, other, tile)
                observed[i].add_(first[i][own] @ tile @ first[i][other], alpha=2)
                strip, j = of_kernel[i]
                lost[i] += 2 * strip.write(j, other, tile)
        for strip in values:
            weighted[strip.kernels] += 2 * strip.totals()
    spread = ratios * (2 * squares).sqrt().unsqueeze(1)
    error = margins * (weighted.abs() + spread) + LOST * ratios * (2 * lost).sqrt().unsqueeze(1)
    weighted[:, :1], error[:, :1] = observed, 0
    rows, squares, error = rows / unit, squares / unit.squeeze(1) ** 2, error / (unit * (1 + ratios) ** 2)
    total = rows.sum(1, keepdim=True)
    of_centred = weighted / unit + 2 * ratios * (1 + ratios) * over_real(rows, labels, side) - ratios**2 * total
    sums = uncentred(of_centred / (1 + ratios) ** 2, rows, squares, effects, labels, m, side)
    return Screened(sums, error)


def _grams(summands: Sequence[Sequence[Summand]], pairs: Pairs) -> Iterator[tuple[int, Tensor]]:
    """Yield each kernel's index and its Gram matrix, in a tensor that the next one may overwrite."""
    sigmas = [gaussian_sigma(terms) for terms in summands]
    known = [sigma for sigma in sigmas if sigma is not None]
    if len(known) < len(sigmas):
        yield from ((i, gram_matrix(terms, pairs)) for i, terms in enumerate(summands))
        return
    sq_dist = shared_sq_dist([part for terms in summands for part in by_kind(terms)[0]], pairs)
    # The narrower Gaussians are powers of the widest one.
    for i, (gram, _, _) in gaussians_with_slopes(sq_dist, known, range(len(known))):
        yield int(i), gram


def _strips(size: int, side: int) -> Iterator[tuple[slice, list[slice]]]:
    """Yield the rows of each strip of tiles on and above the diagonal, and the columns of its tiles."""
    for row in range(0, size, side):
        columns = [slice(start, min(start + side, size)) for start in range(row, size, side)]
        for first in range(0, len(columns), TILES_AT_ONCE):
            yield slice(row, min(row + side, size)), columns[first : first + TILES_AT_ONCE]


def _effects(summands: Sequence[Sequence[Summand]], pooled: Tensor, side: int) -> tuple[Tensor, list[Tensor]]:
    """Return `a` `(r, N)` such that `K[i, j] - a[i] - a[j]` has row means near zero, and a sample of these values.

    The means are taken over the pairs with the samples of the first tile, since a pass over all pairs would cost more
    than it saves. The order of the samples has to be random. The sample is over the pairs of the first tile.
    """
    few = max(2, side)
    sums = pooled.new_zeros((len(summands), len(pooled)), dtype=torch.float64)
    first = []
    for start in range(0, len(pooled), side):
        part = slice(start, min(start + side, len(pooled)))
        pairs = pairs_of(pooled, part, slice(0, few), FLOAT32_LIMIT)
        for i, terms in enumerate(summands):
            gram = gram_matrix(terms, pairs).double()
            if start < few:
                gram.diagonal(start).zero_()
            if start == 0:
                first.append(gram)
            sums[i, part] = gram.sum(1)
    few = min(few, len(pooled))
    counts = torch.full_like(sums[0], few)
    counts[:few] -= 1
    means = sums / counts
    effects = means - means[:, :few].mean(1, keepdim=True) / 2
    samples = [
        gram.sub_(own[: len(gram)].unsqueeze(1)).sub_(own[:few]).fill_diagonal_(0)
        for gram, own in zip(first, effects, strict=True)
    ]
    return effects, samples


def _formats(
    effects: Tensor, samples: Sequence[Tensor], labels: Tensor, m: int
) -> tuple[list[WeightedProducts], list[float]]:
    """Return the products, each for some of the kernels, and the factor of each kernel's values."""
    weights = weighted_products.integer_weights(m, labels.shape[1] - m)
    as_integers = weights is not None and weighted_products.has_fast_integers(labels.device)
    # Powers of two are exact, and with them the squares of the values fit into float32.
    scales = torch.ldexp(effects.new_ones(len(effects)), -torch.frexp(effects.abs().amax(1)).exponent).tolist()
    factors, others = {}, []
    for i, sample in enumerate(samples):
        factor = weighted_products.integer_factor(scales[i] * sample, labels.shape[1]) if as_integers else None
        if factor is None:
            others.append(i)
        else:
            factors[i] = factor
    groups = []
    if factors and weights is not None:
        groups.append(weighted_products.of_integers(factors, labels, weights))
    if others:
        groups.append(weighted_products.rounded(others, labels, m))
    return groups, scales
