r"""The (de)-regularised MMD of Chen et al. (2024) to a fixed reference: its value and its witness function.

.. math::

    \mathrm{DrMMD} = (1 + \lambda)\, \langle f, (\Sigma + \lambda)^{-1} f \rangle
        = \frac{1 + \lambda}{\lambda} \Bigl(\mathrm{MMD}^2 - \langle f, \Sigma (\Sigma + \lambda)^{-1} f \rangle\Bigr)

for the difference :math:`f` of the mean embeddings of fake samples and reference, and the covariance operator
:math:`\Sigma = \sum_i w_i\, k(r_i, \cdot) \otimes k(r_i, \cdot)` of the reference. The operator
:math:`\Sigma (\Sigma + \lambda)^{-1}` is a matrix between functions :math:`k(b, \cdot)` of basis points :math:`b`: rows
or landmarks. It does not depend on the fake samples, so it is factorised once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.pairs.kernel_products import kernel_products
from torch_mmd_losses.references.batches import Rows, ones_like_rows
from torch_mmd_losses.references.kernel_values import chunks, gram

NEGATIVE = 1e-10
"""Relative to the largest kernel value, size above which a negative mean of kernel values is not due to rounding."""


class Factor(NamedTuple):
    """The numbers that are computed once for a reference, in :func:`total_dtype`.

    Attributes:
        lambda_: the regularisation.
        basis: the basis points `(b, d)`.
        means: the mean kernel values `(b,)` of the basis points with the reference.
        weights: weights `(b,)` with which the basis points represent the reference.
        within: the mean kernel value of two rows of the reference.
        solve: multiplies a vector `(b,)` by the matrix of the operator.
    """

    lambda_: float
    basis: Tensor
    means: Tensor
    weights: Tensor
    within: Tensor
    solve: Callable[[Tensor], Tensor]

    def scale(self) -> float:
        """Return the factor in front of the bracket."""
        return (1 + self.lambda_) / self.lambda_  # PyTorch 2.9 does not compile properties of named tuples


def of_rows(rows: Tensor, weights: Tensor, kernel: Kernel, lambda_: float) -> Factor:
    """Return the factor of all rows, in time `O(n^3)` and memory `O(n^2)`.

    Args:
        rows: rows `(n, d)` in :func:`total_dtype`.
        weights: weights `(n,)` >= 0 that add up to one.
        kernel: a positive semi-definite kernel.
        lambda_: the regularisation, above zero.
    """
    matrix = gram(kernel, rows, rows)
    means = matrix @ weights
    within = weights @ means
    roots = weights.sqrt()
    negative = within < -NEGATIVE * matrix.diagonal().abs().max()
    regularised = _plus(matrix.mul_(roots).mul_(roots.unsqueeze(1)), lambda_)  # in place: it may have gigabytes
    cholesky, failed = torch.linalg.cholesky_ex(regularised)
    if bool(negative) or bool(failed):
        raise ValueError(
            "kernel, lambda_: expected a positive definite kernel and a number that is not negligible compared "
            f"with its values, got {kernel} and {lambda_:g}"
        )
    return Factor(lambda_, rows, means, weights, within, partial(_solved_for_rows, roots, cholesky))


def _solved_for_rows(roots: Tensor, cholesky: Tensor, vector: Tensor) -> Tensor:
    return roots * _cholesky_solved(cholesky, roots * vector)


def of_landmarks(
    landmarks: Tensor, cholesky: Tensor, means: Tensor, within: Tensor, rows: Rows, kernel: Kernel, lambda_: float
) -> Factor:
    r"""Return the factor of landmarks, in time `O(n M^2 + M^3)` and memory `O(M^2)`.

    Embeddings and covariance are projected onto the span of the landmarks :math:`Z`. With :math:`k(Z, Z) + \delta I =
    L L^T` and :math:`C = \sum_i w_i\, \psi_i \psi_i^T`, :math:`\psi_i = L^{-1} k(Z, r_i)`, the matrix is
    :math:`L^{-T} C (C + \lambda)^{-1} L^{-1}`.

    Args:
        landmarks: the landmarks `(M, d)` in :func:`total_dtype`.
        cholesky: the factor :math:`L`.
        means: the mean kernel values of the landmarks with the reference, `(M,)`.
        within: the mean kernel value of two rows of the reference.
        rows: rows from which the covariance is estimated, with weights >= 0.
        kernel: the kernel.
        lambda_: the regularisation, above zero.
    """
    covariance = torch.zeros_like(cholesky)
    for part, own in chunks(rows.scores, rows.weights, landmarks, size=max(1, len(landmarks))):
        features = torch.linalg.solve_triangular(cholesky, gram(kernel, landmarks, part), upper=False) * own.sqrt()
        covariance += features @ features.T
    weights = ones_like_rows(rows.scores) if rows.weights is None else rows.weights
    inner = torch.linalg.cholesky(_plus(covariance / weights.sum().to(covariance.device), lambda_))
    solve = partial(_solved_for_landmarks, cholesky, inner, lambda_)
    return Factor(lambda_, landmarks, means, _cholesky_solved(cholesky, means), within, solve)


def _solved_for_landmarks(outer: Tensor, inner: Tensor, lambda_: float, vector: Tensor) -> Tensor:
    features = torch.linalg.solve_triangular(outer, vector.unsqueeze(1), upper=False).squeeze(1)
    features = features - lambda_ * _cholesky_solved(inner, features)
    return torch.linalg.solve_triangular(outer.T, features.unsqueeze(1), upper=True).squeeze(1)


def value(factor: Factor, fake: Tensor, kernel: Kernel) -> Tensor:
    """Return the divergence of fake samples from the reference, a scalar in :func:`total_dtype`.

    Args:
        factor: the factor of the reference.
        fake: checked samples `(m, d)`.
        kernel: the kernel of the factor.
    """
    fake = fake.to(factor.basis.dtype)
    of_basis = _means(factor.basis, fake, kernel)
    difference = of_basis - factor.means
    mmd2 = _means(fake, fake, kernel).mean() - 2 * factor.weights @ of_basis + factor.within
    return factor.scale() * (mmd2 - difference @ factor.solve(difference))


def witness(factor: Factor, points: Tensor, fake: Tensor, kernel: Kernel) -> Tensor:
    """Return the witness function `(p,)` at points in :func:`total_dtype`.

    Args:
        factor: the factor of the reference.
        points: checked points `(p, d)`.
        fake: checked samples `(m, d)`.
        kernel: the kernel of the factor.
    """
    points, fake = points.to(factor.basis.dtype), fake.to(factor.basis.dtype)
    weights = factor.weights + factor.solve(_means(factor.basis, fake, kernel) - factor.means)
    both = torch.cat([factor.basis, fake])
    coefficients = torch.cat([weights, weights.new_full((len(fake),), -1 / len(fake))]).view(1, -1, 1)
    found = kernel_products(points.unsqueeze(0), both.unsqueeze(0), coefficients, kernel)
    return 2 * factor.scale() * found.view(-1)


def _means(points: Tensor, samples: Tensor, kernel: Kernel) -> Tensor:
    """Return the mean kernel values of points with samples, `(p,)`."""
    left = points.unsqueeze(0)
    right = left if samples is points else samples.unsqueeze(0)
    share = ones_like_rows(samples).view(1, -1, 1) / len(samples)
    return kernel_products(left, right, share, kernel).view(-1)


def _cholesky_solved(cholesky: Tensor, vector: Tensor) -> Tensor:
    return torch.cholesky_solve(vector.unsqueeze(1), cholesky).squeeze(1)


def _plus(matrix: Tensor, number: float) -> Tensor:
    """Return a matrix with a number added to its diagonal, in place."""
    matrix.diagonal().add_(number)
    return matrix
