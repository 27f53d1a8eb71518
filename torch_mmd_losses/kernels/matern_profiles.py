"""Laplace and Matern kernels as functions of the squared distance, and the same with their slopes.

As in `profiles.py`, functions that return only values are for autograd and the compiler, and functions that also return
slopes overwrite their argument. Scales and lengths are numbers, or tensors of dimension zero if they are trained.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from torch_mmd_losses.kernels.contract import ValueAndSlope
from torch_mmd_losses.kernels.profiles import LOG_2

Scalar = Any
"""A number, or a tensor of dimension zero."""

FARTHEST = 1e4
"""Distance, in units of the decay, above which kernel values are zero in every dtype."""

MANY = 2**14
"""Least number of distances for which looking for distances of zero saves time, on a CPU."""

HALF_OF_MATERN_32 = 1.678
"""Distance, in units of the decay, at which the Matern kernel of order 3/2 is just above half its peak."""


def laplace(sq_dist: Tensor, scale: Scalar, floor: float) -> Tensor:
    """Return `exp(-max(distance, floor) / scale)`, with a gradient of zero at distance zero and below the floor."""
    apart = sq_dist != 0  # NaN is apart too
    distance = torch.where(apart, sq_dist, 1.0).sqrt()
    outside = apart & ~(distance < floor)
    peak = torch.exp(-floor / scale) if isinstance(scale, Tensor) else math.exp(-floor / scale)
    return torch.where(outside, torch.exp(distance / -scale), peak)


def laplace_with_slope(sq_dist: Tensor, scale: Scalar, floor: float, dtype: torch.dtype | None = None) -> ValueAndSlope:
    """Return :func:`laplace` with its slope. Values are in `dtype`; None stands for that of `sq_dist`."""
    distance, inside = _distance(sq_dist, floor)
    rate = -1 / (scale * LOG_2)
    value = (distance * rate if dtype is None else distance.to(dtype).mul_(rate)).exp2_()
    slope = torch.div(value if dtype is None else value.to(distance.dtype), distance, out=distance)
    return ValueAndSlope(value, slope if inside is None else slope.masked_fill_(inside, 0), -0.5 / scale)


def laplace_overwriting(sq_dist: Tensor, scale: Scalar, floor: float) -> Tensor:
    """Return :func:`laplace` without a graph, in place."""
    distance = sq_dist.sqrt_()
    return (distance.clamp_min_(floor) if floor else distance).mul_(-1 / (scale * LOG_2)).exp2_()


def laplace_half_peak(scale: Scalar, floor: float) -> float:
    """Return the squared distance at which the Laplace kernel is half its peak."""
    half = floor + LOG_2 * scale
    return half * half  # a power would raise an error if it overflows


def _distance(sq_dist: Tensor, floor: float) -> tuple[Tensor, Tensor | None]:
    """Return the distances, at least `floor`, and the places where they have no slope, or None if there are none."""
    distance = sq_dist.sqrt_()
    if distance.is_cpu and distance.numel() >= MANY and float(distance.amin()) > floor:
        return distance, None  # a minimum takes a tenth of the time of a mask
    if not floor:
        return distance, distance == 0
    inside = distance < floor
    return distance.clamp_min_(floor), inside


# With u = decay * distance: (1 + u) exp(-u), whose slope in the squared distance is -decay^2 / 2 * exp(-u).


def matern_32(sq_dist: Tensor, length: Scalar) -> Tensor:
    """Return `(1 + u) exp(-u)` with `u = sqrt(3) * distance / length`."""
    apart, u = _units(sq_dist, length, 3)
    return torch.where(apart, (1 + u) * torch.exp(-u), 1 - sq_dist / length / length * 1.5)


def matern_32_with_slope(sq_dist: Tensor, length: Scalar, dtype: torch.dtype | None = None) -> ValueAndSlope:
    """Return :func:`matern_32` with its slope, in `dtype`; None stands for that of `sq_dist`."""
    u, decay = _own_units(sq_dist, length, 3, dtype)
    slope = (u * (-1 / LOG_2)).exp2_()
    return ValueAndSlope(u.mul_(slope).add_(slope), slope, -0.5 * decay**2)


def matern_32_half_peak(length: Scalar) -> float:
    """Return the squared distance at which the kernel is half its peak."""
    half = HALF_OF_MATERN_32 * length
    return half * half / 3


# With the same u: (1 + u + u^2 / 3) exp(-u), whose derivative is -decay^2 / 6 * (1 + u) exp(-u).


def matern_52(sq_dist: Tensor, length: Scalar) -> Tensor:
    """Return `(1 + u + u^2 / 3) exp(-u)` with `u = sqrt(5) * distance / length`."""
    apart, u = _units(sq_dist, length, 5)
    units = sq_dist / length / length * 5
    near_zero = 1 + units * (units / 24 - 1 / 6)
    return torch.where(apart, (1 + u * (1 + u / 3)) * torch.exp(-u), near_zero)


def matern_52_with_slope(sq_dist: Tensor, length: Scalar, dtype: torch.dtype | None = None) -> ValueAndSlope:
    """Return :func:`matern_52` with its slope, in `dtype`; None stands for that of `sq_dist`."""
    u, decay = _own_units(sq_dist, length, 5, dtype)
    power = (u * (-1 / LOG_2)).exp2_()
    slope = torch.addcmul(power, power, u)
    return ValueAndSlope(torch.addcmul(slope, u.square_(), power, value=1 / 3), slope, -(decay**2) / 6)


# With v = (1 + u + u^2 / 3) exp(-u): v + (u^2 + u^3) exp(-u) / 15, whose derivative is -decay^2 / 10 * v.


def matern_72_with_slope(sq_dist: Tensor, length: Scalar) -> ValueAndSlope:
    """Return the Matern kernel of order 7/2 with its slope."""
    u, decay = _own_units(sq_dist, length, 7)
    power = (u * (-1 / LOG_2)).exp2_()
    square = u.square()
    slope = torch.addcmul(power, power, u).addcmul_(square, power, value=1 / 3)
    return ValueAndSlope(torch.addcmul(slope, square.mul_(u.add_(1)), power, value=1 / 15), slope, -(decay**2) / 10)


def matern(sq_dist: Tensor, nu: float, length: Scalar) -> Tensor:
    """Return the Matern kernel of order `nu`."""
    if nu == 0.5:
        return laplace(sq_dist, length, 0.0)
    return (matern_32 if nu == 1.5 else matern_52)(sq_dist, length)


def matern_with_slope(sq_dist: Tensor, nu: float, length: Scalar, dtype: torch.dtype | None = None) -> ValueAndSlope:
    """Return :func:`matern` with its slope. Values are in `dtype`; None stands for that of `sq_dist`."""
    if nu == 0.5:
        return laplace_with_slope(sq_dist, length, 0.0, dtype)
    return (matern_32_with_slope if nu == 1.5 else matern_52_with_slope)(sq_dist, length, dtype)


def _units(sq_dist: Tensor, length: Scalar, square: int) -> tuple[Tensor, Tensor]:
    """Return which distances are above zero, and `sqrt(square)` times the distances in lengths.

    A distance of zero is replaced by another number, because a root has no derivative at zero. The kernels have one,
    which the Taylor polynomials at zero provide.
    """
    apart = sq_dist != 0
    return apart, (torch.where(apart, sq_dist, 1.0).sqrt() / length * math.sqrt(square)).clamp_max(FARTHEST)


def _own_units(sq_dist: Tensor, length: Scalar, square: int, dtype: torch.dtype | None = None) -> tuple[Tensor, Scalar]:
    """Return `sqrt(square)` times the distances in lengths, in place unless `dtype` differs, and the factor."""
    decay = math.sqrt(square) / length
    units = sq_dist.sqrt_().mul_(decay).clamp_max_(FARTHEST)
    return units if dtype is None else units.to(dtype), decay
