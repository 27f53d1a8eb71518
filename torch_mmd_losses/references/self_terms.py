r"""The sum over pairs of rows, estimated from landmarks and from the pairs of some rows.

With :math:`K_\delta = k(Z, Z) + \delta I` for the landmarks :math:`Z` and :math:`\mu = \sum_i w_i k(Z, r_i)`, the part
:math:`\mu^T K_\delta^{-1} \mu` of :math:`\sum_{ij} w_i w_j k(r_i, r_j)` is exact. The rest is the same sum for the
kernel :math:`k(a, b) - k(a, Z) K_\delta^{-1} k(Z, b)`, which is small.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.precision import total_dtype
from torch_mmd_losses.references.batches import Rows
from torch_mmd_losses.references.kernel_values import chunks, gram, sum_between_different
from torch_mmd_losses.references.subsample import Chosen, choose

JITTER = 1e-6
"""Number added to the diagonal of the Gram matrix of the landmarks, relative to its mean: that of RDM."""

AT_ONCE = 2**22
"""Entries of a Gram matrix of landmarks and rows: 32 MB in float64."""


def factored(kernel: Kernel, landmarks: Tensor) -> Tensor:
    """Return the Cholesky factor of the Gram matrix of landmarks `(M, d)` in :func:`total_dtype`, or raise."""
    matrix = gram(kernel, landmarks, landmarks)
    diagonal = matrix.diagonal()
    diagonal += JITTER * diagonal.mean().abs()
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if bool(failed):
        raise ValueError(
            "kernel: expected a positive definite kernel for kind='nystrom', got one whose Gram matrix of "
            f"landmarks has no Cholesky factor, {kernel}; kind='exact' takes any kernel"
        )
    return factor


def weighted_grams(
    kernel: Kernel, landmarks: Tensor, scores: Tensor, weights: Tensor | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield parts of rows, and the kernel values `(M, m)` of the landmarks with a part, times its weights."""
    for part, own in chunks(scores, weights, landmarks, size=max(1, AT_ONCE // len(landmarks))):
        yield part, gram(kernel, landmarks, part) * own


def sum_left_out(kernel: Kernel, landmarks: Tensor, factor: Tensor, chosen: Chosen, count: int) -> Tensor:
    """Return an estimate without bias of the part that landmarks leave out, except the pairs of a row with itself.

    Args:
        kernel: the kernel.
        landmarks: the landmarks `(M, d)` in :func:`total_dtype`.
        factor: their Cholesky factor.
        chosen: random rows.
        count: the number of all rows.
    """
    some = len(chosen.scores)
    features, squares = torch.zeros_like(factor[0]), torch.zeros_like(factor[0, 0])
    for _, values in weighted_grams(kernel, landmarks, chosen.scores, chosen.weights):
        solved = torch.linalg.solve_triangular(factor, values, upper=False)
        features += solved.sum(1)
        squares += solved.square().sum()
    between = sum_between_different(kernel, chosen.scores, chosen.weights) - features @ features + squares
    scale = 1.0 if some == count else count * (count - 1) / (some * (some - 1))
    return scale * between - (count / some) * squares


def estimated_sum(kernel: Kernel, landmarks: Tensor, rows: Rows, self_rows: int, seed: int) -> Tensor:
    """Return an estimate without bias of the sum over all pairs, except those of a row with itself.

    Args:
        kernel: the kernel.
        landmarks: the landmarks `(M, d)`, which must not depend on the seed.
        rows: all rows.
        self_rows: the number of random rows that estimate the rest.
        seed: seed of their choice.

    Raises:
        ValueError: if the kernel is not positive definite.
    """
    wide = landmarks.to(total_dtype(landmarks.device))
    factor = factored(kernel, wide)
    mu = torch.zeros_like(wide[:, 0])
    for _, values in weighted_grams(kernel, wide, rows.scores, rows.weights):
        mu += values.sum(1)
    solved = torch.linalg.solve_triangular(factor, mu.unsqueeze(1), upper=False)
    chosen = choose([rows], self_rows, torch.Generator().manual_seed(seed))
    return solved.square().sum() + sum_left_out(kernel, wide, factor, chosen, len(rows.scores))
