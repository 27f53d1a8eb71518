"""Losses of small batches with their gradients, from one matrix of squared distances.

For a batch of a GAN, the time of a loss depends on the number of its operations, not on their size. Real and fake
scores are therefore stacked, so that the three groups of pairs are blocks of one matrix of squared distances. The
weights of all pairs in the loss form a second matrix, computed once for all batches of the same sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from torch_mmd_losses.distances import (
    FLOAT32_LIMIT,
    are_clear_of_rounding,
    can_be_clear,
    clamp_rounding_,
    differences_squared,
    is_expandable,
    near_in_float64,
)
from torch_mmd_losses.kernels.contract import UNBOUNDED, Conditioning, Limits, ValueAndSlope
from torch_mmd_losses.kernels.profiles import power_of_two
from torch_mmd_losses.kernels.summands import (
    PairLimits,
    RadialSummand,
    common_exponent,
    values_and_slopes,
    worst_conditioning,
)
from torch_mmd_losses.pairs.near_pairs import StackedNearPairs, near_places
from torch_mmd_losses.pairs.objective import Objective, Weights, groups_of_pairs
from torch_mmd_losses.pairs.tile_distances import differences_weighted
from torch_mmd_losses.precision import total_dtype
from torch_mmd_losses.types import GROUPS, Bounds, Estimator

GroupLimits = tuple[Limits, Limits, Limits]
"""The limits of a kernel for real, cross and fake pairs."""


def values_and_gradients(
    summands: Sequence[RadialSummand],
    real: Tensor,
    fake: Tensor,
    estimator: Estimator,
    objectives: Sequence[Objective],
    *,
    gradients: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the value of each objective and, if wanted, its gradient with respect to the scores.

    Gradients are `(m + n, d)` in the dtype of the scores, real scores first.
    """
    m, n = real.shape[0], fake.shape[0]
    limits = [None if bounds == "none" else group_limits(summands, bounds) for _, bounds in objectives]
    factor = common_exponent(summands) if all([limit is None for limit in limits]) else None  # noqa: C419 (faster)
    conditioning = worst_conditioning(summands, real)
    stack, sq_dist, far_apart, is_wide, near = stacked_distances(real, fake, factor, conditioning)
    mapped: dict[tuple[GroupLimits, ...] | None, ValueAndSlope] = {}
    if factor is not None:
        mapped[None] = power_of_two(sq_dist.double() if is_wide else sq_dist, factor)
    else:
        choices = dict.fromkeys(limits)
        for i, choice in enumerate(choices):
            bounds = [limit_matrices(m, n, each, sq_dist.dtype, sq_dist.device) for each in choice or ()]
            keep = i + 1 < len(choices)
            mapped[choice] = values_and_slopes(
                summands, sq_dist, bounds or None, dtype=real.dtype, keep=keep, in_float64=is_wide
            )
    losses, found = [], []
    for (weights, _), choice in zip(objectives, limits, strict=True):
        value, slope, rate = mapped[choice]
        omega, scales, scale = pair_weights(m, n, weights, estimator, value.dtype, value.device)
        pull = slope * omega
        apart = None if near is None else near.taken_from_(pull)
        sums = pull.sum(1)
        losses.append(torch.dot(sums if slope is value else (value * omega).sum(1), scales))
        if gradients:
            # sum_j pull_ij (z_i - z_j) is, up to its sign, the graph Laplacian of the weights times the scores.
            if far_apart:
                found.append(differences_weighted(pull, stack, stack).mul_(-4 * rate * scale))
                continue
            pull.diagonal().sub_(sums)
            if pull.dtype != stack.dtype:  # this check costs less than a conversion that changes nothing
                pull = pull.to(stack.dtype)
            found.append(torch.addmm(stack, pull, stack, beta=0, alpha=-4 * rate * scale))
            if near is not None and apart is not None:
                near.add_displacements_(found[-1], apart, -4 * rate * scale)
    if stack.dtype != real.dtype:
        found = [gradient.to(real.dtype) for gradient in found]
    return losses, found


def group_limits(summands: Sequence[RadialSummand], bounds: Bounds) -> tuple[GroupLimits, ...] | None:
    """Return the limits of each summand for the three groups, or None if nothing is bounded."""
    real, cross, fake = ([summand.profile.limits(group, bounds) for summand in summands] for group in GROUPS)
    limits = tuple(zip(real, cross, fake, strict=True))
    return None if all(limit == UNBOUNDED for groups in limits for limit in groups) else limits


def stacked_distances(
    real: Tensor, fake: Tensor, factor: float | None, conditioning: Conditioning
) -> tuple[Tensor, Tensor, bool, bool, StackedNearPairs | None]:
    """Return the stacked scores `(m + n, d)` around their centre, and `factor` times their squared distances.

    The distances are `(m + n, m + n)`. Both are in a dtype in which differences of scores are precise: float32, unless
    scores are far from the centre compared with the distances that the kernel distinguishes. To decide this, the host
    must read a number. On a CPU, reading it costs less than float64. On other devices it would need a synchronisation,
    so the dtype there is always float64. The third result is whether even float64 is not enough, on a CPU: distances
    are then sums of squared differences, and gradients should be sums of differences too. The fourth result is
    whether the distances are in float32, but the kernel values should be in float64. The fifth result is the near
    pairs, whose distances were computed from differences, as their part of the gradients should be.
    """
    stack = torch.cat([real, fake])
    unit = factor or 1.0
    if stack.dtype == torch.float32:
        steepness, elasticity, is_moderate, _ = conditioning
        if stack.is_cpu and is_moderate:
            gram, squares = _centred_gram(stack, unit)
            largest = _largest(squares, unit)
            is_wide = conditioning.is_wide(largest)
            enough = largest * steepness <= FLOAT32_LIMIT
            if enough and factor is not None:
                # A Gaussian of a distance that rounding made negative exceeds one by less than its own error.
                return stack, _unclamped(gram, squares), False, is_wide, None
            if enough or can_be_clear(largest, steepness, elasticity):
                distances = clamp_rounding_(_unclamped(gram, squares), factor)
                if enough or are_clear_of_rounding(distances, largest * unit, elasticity, len(stack)):
                    return stack, distances, False, is_wide, None
            stack = torch.cat([real, fake])
        stack = stack.to(total_dtype(stack.device))
    gram, squares = _centred_gram(stack, unit)
    largest = _largest(squares, unit) if stack.is_cpu else 0.0
    if not is_expandable(largest, conditioning.steepness):
        stack = torch.cat([real, fake]).double()  # not around the centre, which rounds too
        return stack, differences_squared(stack, stack).mul_(unit), True, False, None
    distances = _unclamped(gram, squares)
    least = near_in_float64(real.dtype, largest, conditioning.steepness)
    near = None
    if not least:
        clamp_rounding_(distances, factor)
    else:  # distances below zero are near
        places = near_places(distances, least)
        if places is not None:
            near = StackedNearPairs(torch.cat([real, fake]).double(), places)
            near.repair_(distances)
    return stack, distances, False, False, near


def _centred_gram(stack: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """Move the centre of the stack to zero, in place, and return a multiple of its inner products, and of its squares.

    The squares are taken from the product, so that equal scores are at distance zero.
    """
    # A multiple of the sum would be rounded differently for equal scores by a fused multiply-add.
    stack.sub_(stack.mean(0))
    gram = torch.addmm(_zero(stack.dtype, stack.device), stack, stack.t(), beta=0, alpha=factor)
    return gram, gram.diagonal()


def _unclamped(gram: Tensor, squares: Tensor) -> Tensor:
    # Doubling is exact. Any other factor would be rounded here but not in `squares`, by a fused multiply-add.
    return torch.sub(squares, gram, alpha=2).add_(squares.unsqueeze(1))


@lru_cache(maxsize=32)
def _zero(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.zeros((), dtype=dtype, device=device)


def _largest(squares: Tensor, factor: float) -> float:
    """Return the largest squared norm, given its multiples.

    NumPy is not used, because its maximum would slow down the next operations of PyTorch by more than its own time.
    """
    return (squares.amax() if factor > 0 else squares.amin()).item() / factor


@lru_cache(maxsize=32)
def pair_weights(
    m: int, n: int, weights: Weights, estimator: Estimator, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, float]:
    """Return the weight `(m + n, m + n)` of each ordered pair in the loss, and the scale of the weighted sum.

    The scale is returned twice: as a vector `(m + n,)` with one entry for each row, and as a number.

    The three means nearly cancel, so errors of rounded weights would dominate the result. Up to the common scale, the
    weights of MMD^2 are small integers and exact in every dtype. Weights that are not exact are returned in float64.
    """
    groups = groups_of_pairs(m, n, estimator)
    common = math.lcm(*[group.pairs for group in groups])
    real, cross, fake = (weight * (common // group.pairs) for weight, group in zip(weights, groups, strict=True))
    exact = all(torch.tensor(number, dtype=dtype, device="cpu").item() == number for number in (real, cross / 2, fake))
    # Filled on the device: a copy from the host would be a synchronisation.
    omega = torch.full((m + n, m + n), cross / 2, dtype=dtype if exact else total_dtype(device), device=device)
    if groups[1].distinct:
        omega.diagonal(m).zero_()
        omega.diagonal(-m).zero_()
    omega[:m, :m], omega[m:, m:] = real, fake
    if groups[0].distinct:
        omega.fill_diagonal_(0)
    return omega, omega.new_full((m + n,), 1 / common), 1 / common


@lru_cache(maxsize=32)
def limit_matrices(m: int, n: int, groups: GroupLimits, dtype: torch.dtype, device: torch.device) -> PairLimits:
    """Return the limits of the squared distance of each pair, as numbers if they are the same for all pairs."""
    if len(set(groups)) == 1:
        return groups[0]
    sides = []
    for side in range(2):
        real, cross, fake = (limits[side] for limits in groups)
        matrix = torch.full((m + n, m + n), cross, dtype=dtype, device=device)
        matrix[:m, :m], matrix[m:, m:] = real, fake
        sides.append(matrix)
    return sides[0], sides[1]
