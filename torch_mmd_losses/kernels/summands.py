"""The summands of a kernel, and the evaluation of their sum."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from torch_mmd_losses import checks
from torch_mmd_losses.distances import Pairs
from torch_mmd_losses.kernels.contract import (
    UNBOUNDED,
    Conditioning,
    GramFunction,
    Limits,
    Profile,
    ValueAndSlope,
    is_moderate,
)

Numbers = npt.NDArray[np.float64]

GRID = 2.0 ** np.arange(-100, 100.5, 0.5)
"""Squared distances over the whole range in which distances may be computed in float32."""

PairLimits = Limits | tuple[Tensor, Tensor]
"""Limits of the squared distance: the same numbers for all pairs, or a matrix with one entry for each pair."""


class RadialSummand(NamedTuple):
    """A kernel of the distance that is not a sum or a multiple, with its factor in the kernel that it is part of."""

    factor: float
    kernel: nn.Module
    profile: Profile


class GramSummand(NamedTuple):
    """Any other kernel that is not a sum or a multiple, with its factor in the kernel that it is part of."""

    factor: float
    kernel: nn.Module
    function: GramFunction


Summand = RadialSummand | GramSummand


def with_factor(factor: float, summand: Summand) -> Summand:
    """Return the same kernel with another factor, as `_replace` does, which PyTorch 2.6 does not compile."""
    if isinstance(summand, RadialSummand):
        return RadialSummand(factor, summand.kernel, summand.profile)
    return GramSummand(factor, summand.kernel, summand.function)


def by_kind(summands: Iterable[Summand]) -> tuple[list[RadialSummand], list[GramSummand]]:
    """Return the kernels of the distance and all other kernels."""
    radial: list[RadialSummand] = []
    others: list[GramSummand] = []
    for summand in summands:
        if isinstance(summand, RadialSummand):
            radial.append(summand)
        else:
            others.append(summand)
    return radial, others


def checked_factor(factor: float) -> float:
    """Return the product of several factors if it is within the range of a factor."""
    lowest, highest = checks.RANGE
    if not lowest <= factor <= highest:
        checks.hyperparameter("factor, times the factors within the kernel", factor)
    return factor


def gram_matrix(summand: Summand, pairs: Pairs, limits: Limits = UNBOUNDED) -> Tensor:
    """Return the Gram matrix `(m, n)` of one summand without its factor, differentiable by autograd.

    It is in the dtype of the scores, or in float64.

    Args:
        summand: the kernel.
        pairs: the pairs of scores.
        limits: limits of the squared distance, for kernels of the distance.
    """
    if isinstance(summand, GramSummand):
        function = summand.function
        return function.values_of_pairs(pairs) if function.values_of_pairs else function.values(pairs.a, pairs.b)
    profile = summand.profile
    sq_dist = pairs.sq_dist(profile.conditioning, by_hand=profile.by_hand)
    if limits == UNBOUNDED:
        return summand.profile.value(sq_dist)
    # At a bound the full gradient passes, as in the authors' framework. PyTorch's clamp has stopped it since 2.14.
    outside = (sq_dist < limits[0]) | (sq_dist > limits[1])
    return summand.profile.value(torch.where(outside, sq_dist.detach().clamp(*limits), sq_dist))


def sum_of_gram_matrices(summands: Sequence[Summand], pairs: Pairs) -> Tensor:
    """Return the Gram matrix `(m, n)` of a kernel without bounds, differentiable by autograd."""
    grams = [gram_matrix(summand, pairs) for summand in summands]
    weighted = [
        gram if summand.factor == 1 else summand.factor * gram for summand, gram in zip(summands, grams, strict=True)
    ]
    return functools.reduce(torch.add, weighted)


def sum_of_profiles(summands: Sequence[RadialSummand], sq_dist: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return the sum of kernels of the distance, without bounds, at squared distances of any shape.

    `dtype` is the dtype in which kernels of users take squared distances; None stands for the dtype of `sq_dist`.
    """
    own = sq_dist if dtype is None else sq_dist.to(dtype)
    parts = [factor * profile.value(sq_dist if profile.by_hand else own) for factor, _, profile in summands]
    return torch.stack([part.to(sq_dist.dtype) for part in parts]).sum(0)


def needs_float64(summands: Sequence[RadialSummand], like: Tensor) -> bool:
    """Return whether the library's kernels among the summands need float64, if nothing is known about the scores."""
    each = [summand.profile.conditioning(like) for summand in summands if summand.profile.by_hand]
    return any(steepness == math.inf or not moderate for steepness, _, moderate, _ in each)


def values_and_slopes(
    summands: Sequence[RadialSummand],
    sq_dist: Tensor,
    limits: Sequence[PairLimits] | None,
    *,
    dtype: torch.dtype,
    keep: bool,
    in_float64: bool = False,
) -> ValueAndSlope:
    """Return the sum of kernels of the distance with its slope, without a graph.

    Args:
        summands: the kernels.
        sq_dist: squared distances >= 0.
        limits: for each summand, numbers or tensors that broadcast to `sq_dist`; None if nothing is bounded.
        dtype: dtype of the scores. A user's kernel may hold tensors, such as a network, in this dtype.
        keep: whether `sq_dist` must stay unchanged.
        in_float64: return values in float64 also for distances in float32, see :meth:`Conditioning.is_wide`.
    """
    last = len(summands) - 1
    if not last and summands[0].factor == 1:
        own = None if limits is None else limits[0]
        return _value_and_slope(summands[0].profile, sq_dist, own, dtype, keep, in_float64)
    return weighted_sum(
        (
            factor,
            _value_and_slope(
                profile, sq_dist, None if limits is None else limits[i], dtype, keep or i < last, in_float64
            ),
        )
        for i, (factor, _, profile) in enumerate(summands)
    )


def relative_slopes(summands: Sequence[RadialSummand]) -> Numbers | None:
    """Return the relative slopes of kernels at the distances :data:`GRID`, or None if they are not known.

    The relative slope of a kernel of this library falls with the distance. The relative slope of a sum is at most the
    largest relative slope of its summands. Nothing is known about the kernels of users.
    """
    if not all(summand.profile.by_hand for summand in summands):
        return None
    largest: Numbers = np.zeros(len(GRID))
    with np.errstate(all="ignore"):
        for _, _, profile in summands:
            value, slope, rate = profile.value_and_slope(torch.from_numpy(GRID.copy()))
            found = np.abs(slope.numpy() * rate / value.numpy())
            largest = np.fmax(largest, found)  # values of zero have no digits to be changed
    return largest


def clear_distance(slopes: Numbers | None, error: float) -> float:
    """Return the squared distance above which an error of the distance changes values by less than 100 %.

    The result is infinite if that is not known.

    Args:
        slopes: the :func:`relative_slopes` of the kernel.
        error: the error of squared distances.
    """
    if slopes is None:
        return math.inf
    unclear = np.flatnonzero(slopes * error > 1)
    if not len(unclear):
        return 0.0
    return math.inf if unclear[-1] + 1 == len(GRID) else float(GRID[unclear[-1] + 1])


def weighted_sum(parts: Iterable[tuple[float, ValueAndSlope]]) -> ValueAndSlope:
    """Return the sum of `weight * part` in new tensors. Each part may overwrite the tensors of the previous part."""
    remaining = iter(parts)
    weight, first = next(remaining)
    value, slope = first.value * weight, first.slope * (weight * first.rate)
    for weight, part in remaining:
        value.add_(part.value, alpha=weight)
        slope.add_(part.slope, alpha=weight * part.rate)
    return ValueAndSlope(value, slope, 1.0)


def worst_conditioning(summands: Sequence[RadialSummand], like: Tensor) -> Conditioning:
    """Return the conditioning of a sum of kernels of the distance, for scores like the given ones.

    On devices other than a CPU, reading the conditioning of a user's kernel would need a synchronisation. There the
    result is the worst conditioning. Only `is_moderate` is known, from the hyper-parameters of the library's kernels.
    """
    if not like.is_cpu:
        return Conditioning(is_moderate=_are_moderate(summands, like))
    if len(summands) == 1 and summands[0].factor == 1:
        return summands[0].profile.conditioning(like)
    each = [summand.profile.conditioning(like) for summand in summands]
    steepness, elasticity, moderate, half_peak = zip(*each, strict=True)
    factors = [summand.factor for summand in summands]
    return Conditioning(max(steepness), max(elasticity), all(moderate) and is_moderate(*factors), min(half_peak))


def _are_moderate(summands: Sequence[RadialSummand], like: Tensor) -> bool:
    """Return whether the hyper-parameters of kernels of the distance leave room in float32. No tensor is read."""
    by_hand = [summand.profile for summand in summands if summand.profile.by_hand]
    return is_moderate(*[summand.factor for summand in summands]) and all(
        profile.conditioning(like).is_moderate for profile in by_hand
    )


def common_exponent(summands: Sequence[RadialSummand]) -> float | None:
    """Return `c` if the sum of the kernels, without bounds, is `2 ** (c * sq_dist)`, else None.

    Distances computed in multiples of `c` then need one pass fewer, see :func:`profiles.power_of_two`.
    """
    return summands[0].profile.exponent if len(summands) == 1 and summands[0].factor == 1 else None


def takes_groups(summand: Summand) -> bool:
    """Return whether the values of several groups can be computed in one call."""
    return isinstance(summand, RadialSummand) or summand.function.by_groups


def is_by_hand(summand: Summand) -> bool:
    """Return whether a summand belongs to the library, and so has no trained parameters."""
    return (summand.profile if isinstance(summand, RadialSummand) else summand.function).by_hand


def has_closed_form(summand: Summand) -> bool:
    """Return whether sums over pairs have a closed form, which needs no Gram matrix."""
    return isinstance(summand, GramSummand) and summand.function.pair_sum is not None


def may_be_constant(summands: Iterable[Summand]) -> bool:
    """Return whether kernel values may not depend on the scores: the library has no kernel of this kind."""
    return any(
        not is_by_hand(summand) and (isinstance(summand, GramSummand) or summand.profile.steps is None)
        for summand in summands
    )


def is_trained(summand: Summand, like: Tensor) -> bool:
    """Return whether kernel values depend on a tensor, other than the scores, that requires gradients.

    The dtype, device and dimension of the scores are those of `like`.
    """
    if is_by_hand(summand):
        return False
    kernel: Any = summand.kernel
    with torch.enable_grad():
        if isinstance(summand, RadialSummand):
            values = kernel.from_sq_dist(like.new_ones(1, 1))
        else:
            values = kernel.forward(like.new_ones(1, like.shape[1]), like.new_ones(1, like.shape[1]))
    # Anything else than a tensor is an error, which names the shape once the kernel is evaluated at all pairs.
    return isinstance(values, Tensor) and values.requires_grad


def _value_and_slope(
    profile: Profile,
    sq_dist: Tensor,
    limits: PairLimits | None,
    dtype: torch.dtype,
    keep: bool,
    in_float64: bool = False,
) -> ValueAndSlope:
    if not profile.by_hand and sq_dist.dtype != dtype:
        value, slope, rate = _value_and_slope(profile, sq_dist.to(dtype), limits, dtype, keep=False)
        return ValueAndSlope(value.to(sq_dist.dtype), slope.to(sq_dist.dtype), rate)
    evaluate = profile.value_and_slope
    if in_float64 and sq_dist.dtype != torch.float64:
        evaluate = profile.in_float64 or (lambda found: profile.value_and_slope(found.double()))
    if limits is None or (not isinstance(limits[0], Tensor) and limits == UNBOUNDED):
        # A user's kernel is given a copy anyway.
        return evaluate(sq_dist.clone() if keep and profile.by_hand else sq_dist)
    clamped = sq_dist.clamp(*limits)
    outside = clamped != sq_dist  # at a bound itself the full slope passes, as in the authors' framework
    mapped = evaluate(clamped)
    return mapped._replace(slope=mapped.slope.masked_fill(outside, 0))
