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
