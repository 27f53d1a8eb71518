"""Losses of small batches with their gradients, from one matrix of squared distances.

For a batch of a GAN, the time of a loss depends on the number of its operations, not on their size. Real and fake
scores are therefore stacked, so that the three groups of pairs are blocks of one matrix of squared distances. The
weights of all pairs in the loss form a second matrix, computed once for all batches of the same sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from torch_mmd_losses.distances import clamp_rounding_, number_of_pairs
from torch_mmd_losses.kernels.contract import UNBOUNDED, Limits
from torch_mmd_losses.kernels.profiles import power_of_two
from torch_mmd_losses.kernels.summands import PairLimits, RadialSummand, common_exponent, values_and_slopes
from torch_mmd_losses.pairs.objective import Objective, Weights
from torch_mmd_losses.precision import total_dtype
from torch_mmd_losses.types import GROUPS, Bounds, Estimator

GroupLimits = tuple[Limits, Limits, Limits]
"""The limits of a kernel for real, cross and fake pairs."""

FAR_APART = 0.9
"""Fraction of the scatter of all scores that lies between the samples, above which float32 would lose digits."""


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
    stack, gram = stack_and_gram(real, fake, factor or 1)
    squares = gram.diagonal()  # taken from the product, so that equal scores are at distance zero
    # Doubling is exact. Any other factor would be rounded here but not in `squares`, by a fused multiply-add.
    sq_dist = clamp_rounding_(torch.sub(squares, gram, alpha=2).add_(squares.unsqueeze(1)), factor)
    if not all([summand.profile.by_hand for summand in summands]):  # noqa: C419 (faster)
        sq_dist = sq_dist.to(real.dtype)  # a user's kernel may hold tensors, such as a network, in this dtype
    mapped = None if factor is None else power_of_two(sq_dist, factor)
    losses, found = [], []
    for i, (weights, _) in enumerate(objectives):
        if mapped is None or limits[i] != limits[i - 1]:
            bounds = [limit_matrices(m, n, each, sq_dist.dtype, sq_dist.device) for each in limits[i] or ()]
            mapped = values_and_slopes(summands, sq_dist, bounds or None, keep=i + 1 < len(objectives))
        value, slope, rate = mapped
        omega, scales, scale = pair_weights(m, n, weights, estimator, stack.dtype, stack.device)
        pull = slope * omega
        sums = pull.sum(1)
        losses.append(torch.dot(sums if slope is value else (value * omega).sum(1), scales))
        if gradients:
            # sum_j pull_ij (z_i - z_j) is, up to its sign, the graph Laplacian of the weights times the scores.
            pull.diagonal().sub_(sums)
            if pull.dtype != stack.dtype:  # this check costs less than a conversion that changes nothing
                pull = pull.to(stack.dtype)
            found.append(torch.addmm(stack, pull, stack, beta=0, alpha=-4 * rate * scale))
    if stack.dtype != real.dtype:
        found = [gradient.to(real.dtype) for gradient in found]
    return losses, found


def group_limits(summands: Sequence[RadialSummand], bounds: Bounds) -> list[GroupLimits] | None:
    """Return the limits of each summand for the three groups, or None if nothing is bounded."""
    real, cross, fake = ([summand.profile.limits(group, bounds) for summand in summands] for group in GROUPS)
    limits = list(zip(real, cross, fake, strict=True))
    return None if all(limit == UNBOUNDED for groups in limits for limit in groups) else limits


def stack_and_gram(real: Tensor, fake: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """Return the stacked scores `(m + n, d)` around their centre, and `factor` times their inner products.

    The inner products are `(m + n, m + n)`. Both are in a dtype in which differences of scores keep their digits:
    float32, unless the two samples are far apart compared with their spread. To decide this, the host must read a
    number. On a CPU, reading it costs less than float64. On other devices it would be a synchronisation, so the dtype
    there is always float64.
    """
    stack = torch.cat([real, fake])
    if stack.dtype == torch.float32:
        if stack.is_cpu:
            gram = _centred_gram(stack, factor)
            if not _far_apart(gram, factor, real.shape[0]):
                return stack, gram
            stack = torch.cat([real, fake])
        stack = stack.to(total_dtype(stack.device))
    return stack, _centred_gram(stack, factor)


def _centred_gram(stack: Tensor, factor: float) -> Tensor:
    """Move the centre of the stack to zero, in place, and return a multiple of its inner products."""
    stack.sub_(stack.sum(0), alpha=1 / stack.shape[0])
    return torch.addmm(_zero(stack.dtype, stack.device), stack, stack.t(), beta=0, alpha=factor)


@lru_cache(maxsize=32)
def _zero(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.zeros((), dtype=dtype, device=device)


def _far_apart(gram: Tensor, factor: float, m: int) -> bool:
    # In NumPy, because this number only steers the host and is not part of the computation on a device.
    return not np.vdot(gram.numpy(), _contrast(m, gram.shape[0] - m)) / factor <= 0


@lru_cache(maxsize=32)
def _contrast(m: int, n: int) -> npt.NDArray[np.float32]:
    """Return the weights of inner products whose weighted sum is above zero if the samples are far apart.

    The sum is the scatter between the two samples, which follows from the inner products within one sample, minus a
    fraction of the whole scatter.
    """
    contrast = np.diag(np.full(m + n, -FAR_APART, np.float32))
    contrast[:m, :m] += 1 / m + 1 / n
    return contrast


@lru_cache(maxsize=32)
def pair_weights(
    m: int, n: int, weights: Weights, estimator: Estimator, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, float]:
    """Return the weight `(m + n, m + n)` of each ordered pair in the loss, and the scale of the weighted sum.

    The scale is returned twice: as a vector `(m + n,)` with one entry for each row, and as a number.

    The three means nearly cancel, so errors of rounded weights would dominate the result. Up to the common scale, the
    weights of MMD^2 are small integers and exact in every dtype. Weights that are not exact are returned in float64.
    """
    within, aligned = estimator != "biased", estimator == "u_statistic"
    pairs = [
        number_of_pairs(m, m, distinct=within),
        number_of_pairs(m, n, distinct=aligned),
        number_of_pairs(n, n, distinct=within),
    ]
    common = math.lcm(*pairs)
    real, cross, fake = (weight * (common // number) for weight, number in zip(weights, pairs, strict=True))
    exact = all(torch.tensor(number, dtype=dtype, device="cpu").item() == number for number in (real, cross / 2, fake))
    # Filled on the device: a copy from the host would be a synchronisation.
    omega = torch.full((m + n, m + n), cross / 2, dtype=dtype if exact else total_dtype(device), device=device)
    if aligned:
        omega.diagonal(m).zero_()
        omega.diagonal(-m).zero_()
    omega[:m, :m], omega[m:, m:] = real, fake
    if within:
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
