"""Second derivatives for large samples, tile by tile, in memory that grows with the number of samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torch_mmd_losses._pairs import Pairs, Sample
from torch_mmd_losses._tiles import tiles

if TYPE_CHECKING:
    from torch_mmd_losses._fused import Block, Plan


def hessian_product(
    plan: Plan,
    blocks: Sequence[Block],
    samples: Sequence[Tensor],
    factors: Sequence[Tensor],
    directions: Sequence[Tensor],
    size: int,
) -> list[Tensor]:
    """Return the derivatives of `<gradient, direction>` of the sum of `factor * loss` with respect to the samples.

    Args:
        plan: the losses.
        blocks: the groups of pairs.
        samples: real and fake scores.
        factors: one for each loss.
        directions: a direction for the gradient of each sample, of its shape.
        size: rows and columns of a tile.
    """
    products = [torch.zeros_like(scores) for scores in samples]
    for place, block in enumerate(blocks):
        weights = [factor * row.weights[place] / block.pairs for factor, row in zip(factors, plan.rows, strict=True)]
        for rows, columns in tiles(len(samples[block.a]), len(samples[block.b]), block.within, size):
            diagonal = rows == columns
            sides = [(block.a, rows), (block.b, columns)][: 1 if block.within and diagonal else 2]
            with torch.enable_grad():
                leaves = [samples[side][part].detach().requires_grad_() for side, part in sides]
                pairs = _pairs(leaves, block, distinct=block.distinct and diagonal)
                total = torch.stack(
                    [
                        weight * leaf.factor * pairs.total(leaf.kernel._gram(pairs, row.bounds))
                        for weight, row in zip(weights, plan.rows, strict=True)
                        for leaf in plan.leaves
                    ]
                ).sum()
                slopes = torch.autograd.grad(total, leaves, create_graph=True)
                steps = [
                    (slope * directions[side][part]).sum() for slope, (side, part) in zip(slopes, sides, strict=True)
                ]
                found = torch.autograd.grad(torch.stack(steps).sum(), leaves)
            for (side, part), product in zip(sides, found, strict=True):
                products[side][part] += product * (2 if block.within and not diagonal else 1)
    return products


def _pairs(leaves: Sequence[Tensor], block: Block, *, distinct: bool) -> Pairs:
    samples = [Sample(leaf) for leaf in leaves]
    return Pairs(samples[0], samples[-1], block.group, distinct=distinct)
