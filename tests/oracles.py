"""Independent ways to the numbers: loops over pairs in Python floats, and dense matrices of layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from statistics import fmean

import torch
from torch import Tensor, nn

Scalar = Callable[[list[float], list[float]], float]


def mean_kernel(scalar: Scalar, a: Tensor, b: Tensor, *, distinct: bool) -> float:
    """Return the mean of `scalar` over the pairs of rows, without those of equal index if `distinct`."""
    rows_a, rows_b = a.tolist(), b.tolist()
    indices = product(range(len(rows_a)), range(len(rows_b)))
    return fmean(scalar(rows_a[i], rows_b[j]) for i, j in indices if not (distinct and i == j))


def mmd2(scalar: Scalar, real: Tensor, fake: Tensor, estimator: str) -> float:
    """Return the estimate of MMD^2 straight from the definition of the three estimators."""
    within, cross = estimator != "biased", estimator == "u_statistic"
    return (
        mean_kernel(scalar, real, real, distinct=within)
        - 2 * mean_kernel(scalar, real, fake, distinct=cross)
        + mean_kernel(scalar, fake, fake, distinct=within)
    )


def dense_matrix(layer: nn.Module, shape: Sequence[int]) -> Tensor:
    """Return what `layer` does to a sample of the given shape, without its bias, as a matrix `(outputs, inputs)`."""
    with torch.no_grad():
        basis = torch.eye(int(torch.tensor(shape).prod()), dtype=next(layer.parameters()).dtype).reshape(-1, *shape)
        offset = layer(torch.zeros_like(basis[:1]))
        return (layer(basis) - offset).flatten(1).T


def operator_norm(layer: nn.Module, shape: Sequence[int]) -> float:
    """Return the largest singular value of `layer` as a linear map of a sample of the given shape, by SVD."""
    return float(torch.linalg.matrix_norm(dense_matrix(layer, shape).double(), 2))


Terms = Sequence[tuple[float, int, int]]
"""The kernel of a U-statistic, `h(v, v')`: the sum of `c k(v[s], v'[t])` for `(c, s, t)`."""

MMD2: Terms = ((1, 0, 0), (1, 1, 1), (-1, 0, 1), (-1, 1, 0))
DIFFERENCE: Terms = ((1, 1, 1), (-1, 0, 1), (-1, 1, 0), (-1, 2, 2), (1, 0, 2), (1, 2, 0))


def variance(scalar: Scalar, samples: Sequence[Tensor], terms: Terms) -> float:
    """Return the variance of a U-statistic, the means in it taken by loops over distinct samples of each group."""
    rows = [sample.tolist() for sample in samples]
    m = len(rows[0])

    def k(s: int, i: int, t: int, j: int) -> float:
        return scalar(rows[s][i], rows[t][j])

    def mean(s: int, t: int) -> float:
        return mean_kernel(scalar, samples[s], samples[t], distinct=s == t)

    def shared(s: int, t: int, u: int) -> float:
        def taken(p: int, a: int, q: int, b: int) -> bool:
            return p == q and a == b

        kept = [
            (i, j, n)
            for i, j, n in product(range(m), repeat=3)
            if not (taken(s, i, t, j) or taken(s, i, u, n) or taken(t, j, u, n))
        ]
        return fmean(k(s, i, t, j) * k(s, i, u, n) for i, j, n in kept) - mean(s, t) * mean(s, u)

    def own(s: int, t: int) -> float:
        indices = product(range(m), repeat=2)
        return fmean(k(s, i, t, j) ** 2 for i, j in indices if not (s == t and i == j)) - mean(s, t) ** 2

    first = second = 0.0
    for (c, s, t), (e, p, q) in product(terms, terms):
        if s == p:
            first += c * e * shared(s, t, q)
        if s == p and t == q:
            second += c * e * own(s, t)
        elif s == p:
            second += c * e * shared(s, t, q)
        elif t == q:
            second += c * e * shared(t, s, p)
    return (4 * (m - 2) * first + 2 * second) / (m * (m - 1))
