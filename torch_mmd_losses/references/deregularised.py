r"""The (de)-regularised MMD of Chen et al. (2024) to a fixed target: its value and its witness function.

.. math::

    \mathrm{DrMMD} = \frac{1 + \lambda}{\lambda} \Bigl(\mathrm{MMD}^2
        - \delta^{\mathsf T} (K + n \lambda I)^{-1} \delta\Bigr)

for the kernel matrix :math:`K` of the :math:`n` target samples :math:`x` and :math:`\delta_i = E\,k(x_i, y) -
E\,k(x_i, x)` for fake samples :math:`y`. The matrix does not depend on the fake samples, so it is factorised once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses.distances import Pairs, Sample
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.summands import sum_of_gram_matrices
from torch_mmd_losses.pairs.kernel_products import kernel_products
from torch_mmd_losses.precision import full_precision, total_dtype


class Factor(NamedTuple):
    """What is computed once for a target, in :func:`total_dtype` except for the samples.

    Attributes:
        target: the samples `(n, d)`.
        cholesky: the Cholesky factor of the regularised kernel matrix, `(n, n)`.
        means: the mean kernel values of each target sample with all of them, `(n,)`.
        lambda_: the regularisation.
    """

    target: Tensor
    cholesky: Tensor
    means: Tensor
    lambda_: float


@torch.no_grad()
def factorised(target: Tensor, kernel: Kernel, lambda_: float) -> Factor:
    """Return the factor of a target, in time `O(n^3)` and memory `O(n^2)`.

    Args:
        target: checked samples `(n, d)`.
        kernel: a positive semi-definite kernel.
        lambda_: the regularisation, above zero. Large values give MMD^2, small ones the chi-squared divergence.
    """
    sample = Sample(target)
    with full_precision(target.device):
        gram = sum_of_gram_matrices(kernel._summands(), Pairs(sample, sample, distinct=False, same=True))
    gram = gram.to(total_dtype(target.device))
    regularised = gram + len(target) * lambda_ * torch.eye(len(target), dtype=gram.dtype, device=gram.device)
    return Factor(target, torch.linalg.cholesky(regularised), gram.mean(1), lambda_)


def value(factor: Factor, fake: Tensor, kernel: Kernel) -> Tensor:
    """Return the divergence of fake samples from the target, a scalar, differentiable twice.

    Args:
        factor: the factor of the target.
        fake: checked samples `(m, d)`.
        kernel: the kernel of the factor.
    """
    of_target = _means(factor.target, fake, kernel)
    difference = of_target - factor.means
    mmd2 = _means(fake, fake, kernel).mean() - 2 * of_target.mean() + factor.means.mean()
    return (_scale(factor) * (mmd2 - difference @ _solved(factor, difference))).to(fake.dtype)


def witness(factor: Factor, points: Tensor, fake: Tensor, kernel: Kernel) -> Tensor:
    """Return the witness function `(p,)` at points, which falls from the target to the fake samples.

    Its gradient at the fake samples is the velocity of the flow that minimises the divergence, as
    :func:`torch_mmd_losses.witness_gradient` is that of MMD^2.

    Args:
        factor: the factor of the target.
        points: checked points `(p, d)`.
        fake: checked samples `(m, d)`.
        kernel: the kernel of the factor.
    """
    of_target = _means(factor.target, fake, kernel)
    weights = 1 / len(factor.target) + _solved(factor, of_target - factor.means)
    both = torch.cat([factor.target, fake])
    coefficients = torch.cat([weights, weights.new_full((len(fake),), -1 / len(fake))]).view(1, -1, 1)
    found = kernel_products(points.unsqueeze(0), both.unsqueeze(0), coefficients, kernel)
    return (2 * _scale(factor) * found.view(-1)).to(points.dtype)


def _means(points: Tensor, samples: Tensor, kernel: Kernel) -> Tensor:
    """Return the mean kernel values of points with samples, `(p,)`."""
    left = points.unsqueeze(0)
    right = left if samples is points else samples.unsqueeze(0)
    share = torch.full((1, len(samples), 1), 1 / len(samples), dtype=total_dtype(points.device), device=points.device)
    return kernel_products(left, right, share, kernel).view(-1)


def _solved(factor: Factor, vector: Tensor) -> Tensor:
    return torch.cholesky_solve(vector.unsqueeze(1), factor.cholesky).squeeze(1)


def _scale(factor: Factor) -> float:
    return (1 + factor.lambda_) / factor.lambda_
