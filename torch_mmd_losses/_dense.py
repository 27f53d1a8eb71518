"""One pass over the pairs of small samples: real and fake scores in one stack, and as few operations as can be.

For a batch of a GAN the cost of a loss is the number of operations, not their size. All three groups are blocks of one
matrix of squared distances, and which pairs count how much is a matrix of weights that is made once for all batches of
the same sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from torch_mmd_losses._leaf import Leaf, Limits, Mapped, evaluate
from torch_mmd_losses._pairs import total_dtype
from torch_mmd_losses._types import Estimator

BlockLimits = tuple[Limits, Limits, Limits]
"""The limits of a kernel for real-real, cross and fake-fake pairs."""


def losses_and_gradients(
    leaves: Sequence[Leaf],
    real: Tensor,
    fake: Tensor,
    estimator: Estimator,
    rows: Sequence[tuple[tuple[float, float, float], tuple[BlockLimits, ...]]],
    *,
    gradients: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    """Return for each row, that is weights of the three means and limits of each kernel, the loss and its gradient.

    Gradients are `(m + n, d)`, real scores first. Computed in float64 where the device has it, so that no offset of
    the scores, common or not, costs digits.
    """
    m, n = real.shape[0], fake.shape[0]
    stack = torch.cat([real, fake]).to(total_dtype(real.device))
    stack -= stack.mean(0)
    squares = stack.square().sum(1)
    sq_dist = torch.addmm(squares, stack, stack.T, alpha=-2).add_(squares.unsqueeze(1)).clamp_min_(0)
    sq_dist.fill_diagonal_(0)
    evaluated: dict[tuple[BlockLimits, ...], Mapped] = {}
    losses, slopes = [], []
    for weights, limits in rows:
        if limits not in evaluated:
            matrices = [limit_matrices(m, n, blocks, stack.dtype, stack.device) for blocks in limits]
            evaluated[limits] = evaluate(leaves, sq_dist, matrices, keep=len(rows) > 1)
        value, slope, rate = evaluated[limits]
        omega = pair_weights(m, n, weights, estimator, stack.dtype, stack.device)
        pull = slope * omega
        row_sums = pull.sum(1, keepdim=True)
        losses.append(row_sums.sum() if slope is value else torch.dot(value.view(-1), omega.view(-1)))
        if gradients:
            slopes.append(torch.addmm(stack * row_sums, pull, stack, beta=4 * rate, alpha=-4 * rate))
    return losses, slopes


@lru_cache(maxsize=32)
def pair_weights(
    m: int, n: int, weights: tuple[float, float, float], estimator: Estimator, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return the factor `(m + n, m + n)` of each ordered pair in the loss."""
    real, cross, fake = weights
    within = estimator != "biased"
    aligned = estimator == "u_statistic"
    omega = torch.empty(m + n, m + n, dtype=dtype)
    omega[:m, :m] = real / (m * m - m if within else m * m)
    omega[m:, m:] = fake / (n * n - n if within else n * n)
    block = torch.full((m, n), cross / 2 / (m * n - m if aligned else m * n), dtype=dtype)
    if aligned:
        block.fill_diagonal_(0)
    omega[:m, m:], omega[m:, :m] = block, block.T
    if within:
        omega.fill_diagonal_(0)
    return omega.to(device)


@lru_cache(maxsize=32)
def limit_matrices(
    m: int, n: int, blocks: BlockLimits, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor] | Limits:
    """Return the smallest and largest squared distance of each pair, as numbers if they are the same for all."""
    if len(set(blocks)) == 1:
        return blocks[0]
    sides = []
    for side in range(2):
        real, cross, fake = (limits[side] for limits in blocks)
        matrix = torch.full((m + n, m + n), cross, dtype=dtype)
        matrix[:m, :m], matrix[m:, m:] = real, fake
        sides.append(matrix.to(device))
    return sides[0], sides[1]
