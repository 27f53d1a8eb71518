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


def authors_variance(scalar: Scalar, samples: Sequence[Tensor], terms: Terms) -> float:
    """Return the estimate of Sutherland et al. and Binkowski et al. for the variance of a U-statistic, by loops.

    Means in it run over distinct samples of each group; products of means are those of their estimates.
    """
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


Coefficients = dict[tuple[int, int], float]
"""The weight of the mean kernel value of the pairs of samples `s` and `t`, with `s <= t`, in an estimate."""

MMD2_COEFFICIENTS: Coefficients = {(0, 0): 1.0, (1, 1): 1.0, (0, 1): -2.0}
DIFFERENCE_COEFFICIENTS: Coefficients = {(1, 1): 1.0, (0, 1): -2.0, (2, 2): -1.0, (0, 2): 2.0}


def variance(scalar: Scalar, samples: Sequence[Tensor], coefficients: Coefficients) -> float:
    """Return the estimated variance of a sum of mean kernel values: that of effects if positive, and of interactions.

    Within a sample the means run over distinct scores. Everything is a list of Python floats and a sum over indices.
    """
    rows = [sample.tolist() for sample in samples]
    linear = interactions = 0.0
    combined = [[0.0] * len(row) for row in rows]
    noise = [0.0] * len(rows)
    for (s, t), weight in coefficients.items():
        m, n = len(rows[s]), len(rows[t])
        k = [[scalar(a, b) for b in rows[t]] for a in rows[s]]
        if s == t:
            off = [[0.0 if i == j else k[i][j] for j in range(n)] for i in range(m)]
            sums = [sum(row) for row in off]
            everything = sum(sums)
            shared = everything / ((m - 1) * (m - 2))
            within = [(i, j) for i, j in product(range(m), repeat=2) if i != j]
            squares = [(off[i][j] - sums[i] / (m - 2) - sums[j] / (m - 2) + shared) ** 2 for i, j in within]
            interaction = sum(squares) / (m * (m - 3))
            effects = [sums[i] / (m - 2) for i in range(m)]
            combined[s] = [c + 2 * weight * e for c, e in zip(combined[s], effects, strict=True)]
            noise[s] += 4 * weight**2 * interaction / (m - 2)
            interactions += 2 * weight**2 * interaction / (m * (m - 1))
        else:
            left = [fmean(row) for row in k]
            right = [fmean(column) for column in zip(*k, strict=True)]
            everything = fmean(left)
            squares = [(k[i][j] - left[i] - right[j] + everything) ** 2 for i, j in product(range(m), range(n))]
            interaction = sum(squares) / ((m - 1) * (n - 1))
            combined[s] = [c + weight * e for c, e in zip(combined[s], left, strict=True)]
            combined[t] = [c + weight * e for c, e in zip(combined[t], right, strict=True)]
            noise[s] += weight**2 * interaction / n
            noise[t] += weight**2 * interaction / m
            interactions += weight**2 * interaction / (m * n)
    for effects, error in zip(combined, noise, strict=True):
        mean = fmean(effects)
        linear += (sum((e - mean) ** 2 for e in effects) / (len(effects) - 1) - error) / len(effects)
    return max(linear, 0.0) + interactions


def permutation_p_value(
    gram: Sequence[Tensor], labels: Tensor, score_dtype: torch.dtype, *, standardised: bool
) -> float:
    """Return the p-value of a permutation test from whole Gram matrices `(N, N)`, with all sums in float64.

    Args:
        gram: the Gram matrix of each kernel.
        labels: masks `(B + 1, N)` of the samples that are called real; the first one is the observed division.
        score_dtype: dtype of the scores, which rounding errors depend on.
        standardised: divide MMD^2 by its standard deviation over all divisions.
    """
    size, m = labels.shape[1], int(labels[0].sum())
    n, real = size - m, labels.double()
    fake = 1 - real
    statistics, rounding = [], []
    for matrix in gram:
        k = matrix.double().fill_diagonal_(0)
        means = [
            ((a @ k) * b).sum(1) / pairs
            for a, b, pairs in ((real, real, m * (m - 1)), (real, fake, m * n), (fake, fake, n * (n - 1)))
        ]
        eps = max(torch.finfo(torch.float64).eps, torch.finfo(score_dtype).eps / size)
        error = 64 * eps * sum(weight * float(mean.abs().max()) for weight, mean in zip((1, 2, 1), means, strict=True))
        unit = 1.0
        if standardised:
            rows = k.sum(1)
            effects = rows / (size - 2) - rows.sum() / (2 * (size - 1) * (size - 2))
            centred = (k - effects - effects.unsqueeze(1)).fill_diagonal_(0)
            factor = 2 * (size - 1) * (size - 2) / (size * (size - 3) * m * (m - 1) * n * (n - 1))
            unit = max(error, (factor * float(centred.square().sum())) ** 0.5)
        statistics.append((means[0] - 2 * means[1] + means[2]) / unit)
        rounding.append(error / unit)
    largest = torch.stack(statistics).amax(0)
    return float((largest >= largest[0] - max(rounding)).double().mean())
