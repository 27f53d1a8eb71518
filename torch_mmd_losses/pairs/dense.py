"""One pass over the pairs of small samples: real and fake scores in one stack, and as few operations as can be.

For a batch of a GAN the cost of a loss is the number of operations, not their size. All three groups are blocks of one
matrix of squared distances, and which pairs count how much is a matrix of weights that is made once for all batches of
the same sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from torch_mmd_losses.distances import count, total_dtype
from torch_mmd_losses.kernels.summands import Leaf, Limits, PairLimits, evaluate, exponent, lifted, power_of_two
from torch_mmd_losses.types import Estimator, Weights

DENSE_UP_TO = 512
"""Real and fake samples together up to which one dense matrix is faster than tiles."""

BlockLimits = tuple[Limits, Limits, Limits]
"""The limits of a kernel for real-real, cross and fake-fake pairs."""

APART = 0.9
"""Share of the scores' scatter that lies between the samples, above which float32 would cost digits within them."""


def suits(samples: int) -> bool:
    """Whether this pass is the faster one for so many real and fake samples together."""
    return samples <= DENSE_UP_TO


def losses_and_gradients(
    leaves: Sequence[Leaf],
    real: Tensor,
    fake: Tensor,
    estimator: Estimator,
    objectives: Sequence[tuple[Weights, Sequence[BlockLimits] | None]],
    *,
    gradients: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    """Return losses and their gradients: of each, weights of the three means are given, and limits of each kernel.

    Gradients are `(m + n, d)` in the dtype of the scores, real scores first.
    """
    m, n = real.shape[0], fake.shape[0]
    factor = exponent(leaves) if all([limits is None for _, limits in objectives]) else None  # noqa: C419 (faster)
    stack, gram = stack_and_gram(real, fake, factor or 1)
    squares = gram.diagonal()  # from here, so that equal scores are at distance zero
    # Twice a number is exact. Any other multiple would be rounded here and not in `squares`, by a fused multiply-add.
    sq_dist = lifted(torch.sub(squares, gram, alpha=2).add_(squares.unsqueeze(1)), factor)
    if not all([leaf.kernel._has_slope for leaf in leaves]):  # noqa: C419 (faster)
        sq_dist = sq_dist.to(real.dtype)  # a user's own map may hold tensors, such as a network, in that of the scores
    mapped = None if factor is None else power_of_two(sq_dist, factor)
    losses, found = [], []
    for i, (weights, limits) in enumerate(objectives):
        if mapped is None or limits != objectives[i - 1][1]:
            bounds = [limit_matrices(m, n, blocks, sq_dist.dtype, sq_dist.device) for blocks in limits or ()]
            mapped = evaluate(leaves, sq_dist, bounds or None, keep=i + 1 < len(objectives))
        value, slope, rate = mapped
        omega, scales, scale = pair_weights(m, n, weights, estimator, stack.dtype, stack.device)
        pull = slope * omega
        sums = pull.sum(1)
        losses.append(torch.dot(sums if slope is value else (value * omega).sum(1), scales))
        if gradients:
            # sum_j pull_ij (z_i - z_j): the graph Laplacian of the weights, up to its sign, times the scores.
            pull.diagonal().sub_(sums)
            if pull.dtype != stack.dtype:  # asking costs less than a conversion to what it is already
                pull = pull.to(stack.dtype)
            found.append(torch.addmm(stack, pull, stack, beta=0, alpha=-4 * rate * scale))
    if stack.dtype != real.dtype:
        found = [gradient.to(real.dtype) for gradient in found]
    return losses, found


def stack_and_gram(real: Tensor, fake: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """Return real and fake scores `(m + n, d)` around their centre, and `factor` times their inner products.

    The latter are `(m + n, m + n)`. Both are in a dtype in which differences of the scores are exact. Float32 is
    enough unless the two samples are far apart for their size. To know that, the host has to read a number: on a
    CPU that costs less than float64, elsewhere it would be a synchronisation.
    """
    stack = torch.cat([real, fake])
    if stack.dtype == torch.float32:
        if stack.is_cpu:
            gram = _centred_gram(stack, factor)
            if not _apart(gram, factor, real.shape[0]):
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


def _apart(gram: Tensor, factor: float, m: int) -> bool:
    # NumPy, because what the host decides with is no part of the computation on a device.
    return not np.vdot(gram.numpy(), _contrast(m, gram.shape[0] - m)) / factor <= 0


@lru_cache(maxsize=32)
def _contrast(m: int, n: int) -> npt.NDArray[np.float32]:
    """Return what to multiply inner products with so that their sum is above zero if the samples are far apart.

    The scatter between the samples, of which the inner products within one of them are enough, less a share of all.
    """
    contrast = np.diag(np.full(m + n, -APART, np.float32))
    contrast[:m, :m] += 1 / m + 1 / n
    return contrast


@lru_cache(maxsize=32)
def pair_weights(
    m: int, n: int, weights: Weights, estimator: Estimator, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, float]:
    """Return the factor `(m + n, m + n)` of each ordered pair in the loss, and what to multiply the sum with.

    The latter twice: as a vector `(m + n,)`, one for each row, and as a number.

    Where the means cancel, rounded factors would be what is left. Up to a common one, those of MMD^2 are small whole
    numbers, exact in any dtype; others are returned in float64.
    """
    within, aligned = estimator != "biased", estimator == "u_statistic"
    pairs = [count(m, m, distinct=within), count(m, n, distinct=aligned), count(n, n, distinct=within)]
    common = math.lcm(*pairs)
    real, cross, fake = (weight * (common // number) for weight, number in zip(weights, pairs, strict=True))
    exact = all(torch.tensor(number, dtype=dtype, device="cpu").item() == number for number in (real, cross / 2, fake))
    # Filled where it is needed: a copy from the host would be waited for.
    omega = torch.full((m + n, m + n), cross / 2, dtype=dtype if exact else total_dtype(device), device=device)
    if aligned:
        omega.diagonal(m).zero_()
        omega.diagonal(-m).zero_()
    omega[:m, :m], omega[m:, m:] = real, fake
    if within:
        omega.fill_diagonal_(0)
    return omega, omega.new_full((m + n,), 1 / common), 1 / common


@lru_cache(maxsize=32)
def limit_matrices(m: int, n: int, blocks: BlockLimits, dtype: torch.dtype, device: torch.device) -> PairLimits:
    """Return the smallest and largest squared distance of each pair, as numbers if they are the same for all."""
    if len(set(blocks)) == 1:
        return blocks[0]
    sides = []
    for side in range(2):
        real, cross, fake = (limits[side] for limits in blocks)
        matrix = torch.full((m + n, m + n), cross, dtype=dtype, device=device)
        matrix[:m, :m], matrix[m:, m:] = real, fake
        sides.append(matrix)
    return sides[0], sides[1]
