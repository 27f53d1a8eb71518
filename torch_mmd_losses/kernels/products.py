"""Products of kernels."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from torch_mmd_losses.distances import Pairs
from torch_mmd_losses.kernels.columns import of_pairs, on_columns
from torch_mmd_losses.kernels.contract import (
    UNBOUNDED,
    ColumnRange,
    Conditioning,
    Limits,
    Profile,
    ValueAndSlope,
    is_moderate,
)
from torch_mmd_losses.kernels.summands import (
    GramSummand,
    RadialSummand,
    Summand,
    checked_factor,
    is_by_hand,
    sum_of_gram_matrices,
)
from torch_mmd_losses.types import Bounds, Group

EVERYTHING = ColumnRange(0, None)


def product(kernel: nn.Module, parts: Sequence[Sequence[Summand]]) -> Summand:
    """Return the product of kernels.

    A product of Gaussian kernels of columns is a Gaussian kernel of scaled columns. A product of the library's kernels
    of the distance is a kernel of the distance, whose slope is that of the product rule. Any other product is a product
    of Gram matrices. Bounds of the kernels are ignored.

    Args:
        kernel: the product, as a module.
        parts: the summands of each factor.
    """
    gaussian = _joint_gaussian(kernel, parts)
    if gaussian is not None:
        return gaussian
    radial = [part[0] for part in parts if isinstance(part[0], RadialSummand) and len(part) == 1]
    if len(radial) == len(parts) and all(map(is_by_hand, radial)):
        factor = checked_factor(_multiplied([summand.factor for summand in radial]))
        return RadialSummand(1.0, kernel, _product_of_profiles(factor, [summand.profile for summand in radial]))
    summands = [summand for part in parts for summand in part]
    return GramSummand(1.0, kernel, of_pairs(partial(_product_of_gram_matrices, parts), summands))


def _product_of_gram_matrices(parts: Sequence[Sequence[Summand]], pairs: Pairs) -> Tensor:
    return functools.reduce(torch.mul, [sum_of_gram_matrices(part, pairs) for part in parts])


def _joint_gaussian(kernel: nn.Module, parts: Sequence[Sequence[Summand]]) -> GramSummand | None:
    """Return the product of Gaussian kernels of columns as one Gaussian kernel of all their columns, in its units.

    If a factor is anything else, or if none is a kernel of some columns, return None.
    """
    found = [gaussian for gaussian in map(_gaussian, parts) if gaussian is not None]
    if len(found) < len(parts) or all(ranges == (EVERYTHING,) for _, ranges, _ in found):
        return None
    factor, unit = checked_factor(_multiplied([own for own, _, _ in found])), found[0][2]
    joint = [
        ColumnRange(start, stop, scale * math.sqrt(_exponent(summand) / _exponent(unit)))
        for _, ranges, summand in found
        for start, stop, scale in ranges
    ]
    own = unit.profile
    plain = RadialSummand(
        factor,
        unit.kernel,
        Profile(own.value, own.value_and_slope, _no_limits, own.conditioning, own.exponent, own.by_hand),
    )
    return GramSummand(1.0, kernel, on_columns(joint, [plain]))


def _gaussian(part: Sequence[Summand]) -> tuple[float, tuple[ColumnRange, ...], RadialSummand] | None:
    """Return the factor, the columns and the Gaussian kernel that a kernel consists of, or None."""
    if len(part) != 1:
        return None
    (summand,) = part
    if isinstance(summand, RadialSummand):
        return None if summand.profile.exponent is None else (summand.factor, (EVERYTHING,), summand)
    if summand.function.of_columns is None:
        return None
    ranges, inner = summand.function.of_columns
    found = _gaussian(inner)
    if found is None or found[1] != (EVERYTHING,):  # columns of columns are left alone
        return None
    return summand.factor * found[0], ranges, found[2]


def _multiplied(numbers: Sequence[float]) -> float:
    result = 1.0
    for number in numbers:  # the compiler of PyTorch does not know math.prod
        result *= number
    return result


def _exponent(summand: RadialSummand) -> float:
    return summand.profile.exponent or math.nan


def _product_of_profiles(factor: float, profiles: Sequence[Profile]) -> Profile:
    return Profile(
        partial(_value, factor, profiles),
        partial(_value_and_slope, factor, profiles),
        _no_limits,
        partial(_conditioning, factor, profiles),
        by_hand=True,
    )


def _value(factor: float, profiles: Sequence[Profile], sq_dist: Tensor) -> Tensor:
    return factor * functools.reduce(torch.mul, [profile.value(sq_dist) for profile in profiles])


def _value_and_slope(factor: float, profiles: Sequence[Profile], sq_dist: Tensor) -> ValueAndSlope:
    value, slope = torch.full_like(sq_dist, factor), torch.zeros_like(sq_dist)
    for profile in profiles:
        part = profile.value_and_slope(sq_dist.clone())
        slope.mul_(part.value).addcmul_(value, part.slope, value=part.rate)
        value.mul_(part.value)
    return ValueAndSlope(value, slope, 1.0)


def _conditioning(factor: float, profiles: Sequence[Profile], like: Tensor) -> Conditioning:
    steepness, elasticity, moderate, _ = zip(*[profile.conditioning(like) for profile in profiles], strict=True)
    return Conditioning(sum(steepness), sum(elasticity), all(moderate) and is_moderate(factor))


def _no_limits(group: Group, bounds: Bounds) -> Limits:
    return UNBOUNDED
