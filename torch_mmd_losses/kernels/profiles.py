"""Gaussians and rational quadratics as functions of the squared distance, and in one go with their slopes.

The former are what autograd and the compiler see. The latter overwrite their argument and save what passes they can.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from torch_mmd_losses.kernels.summands import LOG_2, Mapped, power_of_two

SQUARINGS = 8
"""How often in a row a Gaussian may be squared: each time doubles its relative error."""


def gaussian_value(sq_dist: Tensor, sigma: float) -> Tensor:
    """Return `exp(-sq_dist / (2 sigma^2))`."""
    return torch.exp(sq_dist * (-0.5 / sigma**2))


def rational_quadratic_value(sq_dist: Tensor, alpha: float) -> Tensor:
    """Return `(1 + sq_dist / (2 alpha)) ** -alpha`."""
    return (1 + sq_dist * (0.5 / alpha)) ** -alpha


def gaussian(sq_dist: Tensor, sigma: float) -> Mapped:
    """Return a Gaussian with its slope."""
    exponent = gaussian_exponent(sigma)
    return power_of_two(sq_dist.mul_(exponent), exponent)


def gaussian_exponent(sigma: float) -> float:
    """Return the number `c` for which the Gaussian is `2 ** (c * sq_dist)`."""
    return -0.5 / (sigma**2 * LOG_2)


def gaussians(sq_dist: Tensor, sigmas: Sequence[float], weights: Sequence[float]) -> Iterator[tuple[float, Mapped]]:
    """Yield the weight of each Gaussian and its map, whose tensors the next one overwrites."""
    parts = sorted(zip(sigmas, weights, strict=True), reverse=True)
    chain = _squarings(tuple([sigma for sigma, _ in parts]))
    part = sq_dist
    for i, (sigma, weight) in enumerate(parts):
        if chain[i]:
            for _ in range(chain[i]):
                part.square_()
        else:
            needed_again = 0 in chain[i + 1 :]
            part = gaussian(sq_dist.clone() if needed_again else sq_dist, sigma).value
        yield weight, Mapped(part, part, -0.5 / sigma**2)


@lru_cache(maxsize=32)
def _squarings(sigmas: tuple[float, ...]) -> list[int]:
    """Return how often to square the Gaussian before to get the next one; 0 stands for a new exponential.

    A Gaussian of half the variance is the square, which is cheaper. `sigmas` are in descending order.
    """
    found, previous, in_a_row = [], math.inf, 0
    for sigma in sigmas:
        halvings = 2 * math.log2(previous / sigma)
        whole = halvings < SQUARINGS + 0.5 and math.isclose(halvings, max(1, round(halvings)), abs_tol=1e-12)
        times = round(halvings) if whole else 0
        in_a_row = in_a_row + times if times and in_a_row + times <= SQUARINGS else 0
        found.append(times if in_a_row else 0)
        previous = sigma
    return found


def rational_quadratic(sq_dist: Tensor, alpha: float) -> Mapped:
    """Return a rational quadratic with its slope."""
    base = torch.rsub(sq_dist, 1.0, alpha=-0.5 / alpha)
    if alpha == 0.5:
        value = base.rsqrt_()
        return Mapped(value, value.square().mul_(value), -0.5)
    if alpha in (1, 2, 3, 4, 5):  # a general power costs ten times a product
        inverse = base.reciprocal_()
        value = _whole_power(inverse, int(alpha))
        return Mapped(value, inverse.square() if value is inverse else inverse.mul_(value), -0.5)
    value = base.log2().mul_(-alpha).exp2_()
    return Mapped(value, torch.div(value, base, out=base), -0.5)


def _whole_power(x: Tensor, exponent: int) -> Tensor:
    if exponent == 1:
        return x
    half = _whole_power(x, exponent // 2)
    even = half.square() if half is x else half.square_()
    return even.mul_(x) if exponent % 2 else even
