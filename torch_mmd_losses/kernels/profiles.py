"""Gaussians, rational quadratics and distances as functions of the squared distance, and the same with their slopes.

Functions that return only values are for autograd and the compiler. Functions that also return slopes overwrite their
argument and make few passes over it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from torch_mmd_losses.kernels.contract import ValueAndSlope, is_moderate

LOG_2 = math.log(2)

SMALLEST_SHAPE = 2.0**-20
"""Smallest shape parameter of a rational quadratic whose inverse leaves room in float32 for squared distances."""

LARGE_SHAPE = 8.0
"""Largest shape parameter for which a power of a rounded base, off by as many roundings, is right within 1e-6."""

GAUSSIAN_SHAPE = 1e18
"""Shape parameter above which a rational quadratic equals a Gaussian in float64. Its square still fits into float32."""

SQUARINGS = 8
"""Largest number of successive squarings of a Gaussian: each squaring doubles its relative error."""


def gaussian(sq_dist: Tensor, sigma: float) -> Tensor:
    """Return `exp(-sq_dist / (2 sigma^2))`."""
    if is_moderate(sigma):
        return torch.exp(sq_dist * (-0.5 / sigma**2))
    return torch.exp(sq_dist / sigma / sigma * -0.5)  # the square might not fit into float32


def gaussian_with_slope(sq_dist: Tensor, sigma: float) -> ValueAndSlope:
    """Return :func:`gaussian` with its slope."""
    exponent = gaussian_exponent(sigma)
    return power_of_two(sq_dist.mul_(exponent), exponent)


def gaussian_exponent(sigma: float) -> float:
    """Return the number `c` for which the Gaussian is `2 ** (c * sq_dist)`."""
    return -0.5 / (sigma**2 * LOG_2)


def power_of_two(exponents: Tensor, factor: float) -> ValueAndSlope:
    """Return `2 ** exponents` with its slope, given `exponents = factor * sq_dist`, which is overwritten."""
    value = exponents.exp2_()  # takes a third of the time of exp, at the same accuracy
    return ValueAndSlope(value, value, factor * LOG_2)


def gaussians_with_slopes(
    sq_dist: Tensor, sigmas: Sequence[float], weights: Sequence[float]
) -> Iterator[tuple[float, ValueAndSlope]]:
    """Yield each Gaussian's weight with its values and slopes, in tensors that the next Gaussian overwrites."""
    parts = sorted(zip(sigmas, weights, strict=True), reverse=True)
    squarings = _squarings(tuple([sigma for sigma, _ in parts]))
    value = sq_dist
    for i, (sigma, weight) in enumerate(parts):
        if squarings[i]:
            for _ in range(squarings[i]):
                value.square_()
        else:
            needed_again = 0 in squarings[i + 1 :]
            value = gaussian_with_slope(sq_dist.clone() if needed_again else sq_dist, sigma).value
        yield weight, ValueAndSlope(value, value, -0.5 / sigma**2)


@lru_cache(maxsize=32)
def _squarings(sigmas: tuple[float, ...]) -> list[int]:
    """Return how often to square the previous Gaussian to get each Gaussian; 0 means to compute a new exponential.

    The square of a Gaussian is a Gaussian with half the variance, and costs less than an exponential. `sigmas` are in
    descending order.
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


def rational_quadratic(sq_dist: Tensor, alpha: float, length: float) -> Tensor:
    """Return `(1 + sq_dist / (2 alpha length^2)) ** -alpha`."""
    if alpha > GAUSSIAN_SHAPE:
        return gaussian(sq_dist, length)
    if not is_moderate(length):
        return rational_quadratic(sq_dist / length / length, alpha, 1.0)
    if alpha > LARGE_SHAPE:
        return torch.exp(torch.log1p(sq_dist * (0.5 / (alpha * length**2))) * -alpha)
    if alpha < SMALLEST_SHAPE:  # the quotient might not fit into float32
        unit = 2 * alpha * length**2
        return torch.exp((torch.log(sq_dist + unit) - math.log(unit)) * -alpha)
    return (1 + sq_dist * (0.5 / (alpha * length**2))) ** -alpha


def rational_quadratic_with_slope(sq_dist: Tensor, alpha: float, length: float) -> ValueAndSlope:
    """Return :func:`rational_quadratic` with its slope, in separate tensors."""
    if alpha > GAUSSIAN_SHAPE:
        return gaussian_with_slope(sq_dist.clone(), length)
    rate, factor = -0.5 / length**2, 0.5 / (alpha * length**2)
    if alpha > LARGE_SHAPE:
        quotient = sq_dist * factor
        value = quotient.log1p().mul_(-alpha / LOG_2).exp2_()
        base = quotient.add_(1)
        return ValueAndSlope(value, torch.div(value, base, out=base), rate)
    base = torch.rsub(sq_dist, 1.0, alpha=-factor)
    if alpha == 0.5:
        value = base.rsqrt_()
        return ValueAndSlope(value, value.square().mul_(value), rate)
    if alpha in (1, 2, 3, 4, 5):  # a general power costs ten times a product
        inverse = base.reciprocal_()
        value = _whole_power(inverse, int(alpha))
        return ValueAndSlope(value, inverse.square() if value is inverse else inverse.mul_(value), rate)
    value = base.log2().mul_(-alpha).exp2_()
    return ValueAndSlope(value, torch.div(value, base, out=base), rate)


def _whole_power(x: Tensor, exponent: int) -> Tensor:
    if exponent == 1:
        return x
    half = _whole_power(x, exponent // 2)
    even = half.square() if half is x else half.square_()
    return even.mul_(x) if exponent % 2 else even


def negative_distance(sq_dist: Tensor) -> Tensor:
    """Return minus the distance, with a gradient of zero at distance zero."""
    apart = sq_dist != 0  # NaN is apart too
    return -torch.where(apart, torch.where(apart, sq_dist, 1.0).sqrt(), 0.0)


def negative_distance_with_slope(sq_dist: Tensor) -> ValueAndSlope:
    """Return :func:`negative_distance` with its slope."""
    inverse = sq_dist.rsqrt().masked_fill_(sq_dist == 0, 0)
    return ValueAndSlope(sq_dist.mul_(inverse).neg_(), inverse, -0.5)
