"""Sums of inner products at given points, by one product with a sum over samples, without a Gram matrix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_mmd_losses.kernels.inner_product import is_linear
from torch_mmd_losses.kernels.summands import Summand
from torch_mmd_losses.precision import total_dtype


def without_linear(summands: Sequence[Summand]) -> tuple[Sequence[Summand], float | None]:
    """Return the summands that are not linear kernels, and the factor of the linear kernels (None without any)."""
    others, factor = [], None
    for each in summands:
        if is_linear(each):
            factor = (factor or 0.0) + each.factor
        else:
            others.append(each)
    return others, factor


def linear_products(points: Tensor, samples: Tensor, coefficients: Tensor, *, distinct: bool) -> Tensor:
    """Return the sums `(g, p, c)` of inner products times coefficients, in :func:`total_dtype`.

    For the arguments see :func:`torch_mmd_losses.pairs.kernel_products.kernel_products`.
    """
    wide = total_dtype(points.device)
    x, y, factors = points.to(wide), samples.to(wide), coefficients.to(wide)
    total = x @ (y.mT @ factors)
    if not distinct:
        return total
    both = min(x.shape[1], y.shape[1])
    own = (x[:, :both] * y[:, :both]).sum(-1, keepdim=True) * factors[:, :both]
    return torch.cat([total[:, :both] - own, total[:, both:]], 1)


def linear_gradients(points: Tensor, samples: Tensor, weights: Tensor) -> Tensor:
    """Return the gradient `(g, p, d)` of the weighted sums of inner products, the same at each point."""
    wide = total_dtype(points.device)
    total = weights.to(wide).unsqueeze(-2) @ samples.to(wide)
    return total.expand_as(points).to(points.dtype)
