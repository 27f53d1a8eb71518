"""Second derivatives of losses of large batches, tile by tile, in memory that grows with the number of samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_mmd_losses.distances import Sample
from torch_mmd_losses.kernels.summands import Summand
from torch_mmd_losses.pairs.batch import WeightedBlock
from torch_mmd_losses.pairs.by_autograd import pair_sum
from torch_mmd_losses.pairs.objective import Objective
from torch_mmd_losses.pairs.tiles import tiles


def add_hessian_product(
    products: Sequence[Tensor | None],
    summands: Sequence[Summand],
    objective: Objective,
    blocks: Sequence[WeightedBlock],
    samples: Sequence[Tensor],
    directions: Sequence[Tensor],
    side: int,
    at_once: int,
) -> None:
    """Add the derivatives of `<gradient of a loss, direction>` with respect to the scores to `products`.

    Args:
        products: for each local sample, the tensor to add to; None if the derivative is not wanted.
        summands: the kernel.
        objective: the loss.
        blocks: the blocks of pairs.
        samples: the scores of all samples.
        directions: for each sample, the direction for its gradient, a tensor of the same shape.
        side: number of rows and columns of a tile.
        at_once: how many tiles an operator takes at once.
    """
    for part in blocks:
        weight = getattr(objective.weights, part.group) / part.pairs * part.gradient_weight
        block = part.block
        for rows, columns in tiles(block, side, at_once):
            sides = [(part.a, rows), (part.b, columns)]
            if block.symmetric and rows == columns:
                del sides[1]
            with torch.enable_grad():
                scores = [samples[sample][place].detach().requires_grad_() for sample, place in sides]
                first, last = Sample(scores[0]), Sample(scores[-1])
                pairs = part.pairs_of(first, first if len(scores) == 1 else last, rows.start, columns.start)
                values = [
                    summand.factor * pair_sum(summand, pairs, part.group, objective.bounds) for summand in summands
                ]
                total = torch.stack(values).sum()
                if not total.requires_grad:
                    continue
                slopes = torch.autograd.grad(total, scores, create_graph=True, materialize_grads=True)
                steps = [
                    (slope * directions[sample][place]).sum()
                    for slope, (sample, place) in zip(slopes, sides, strict=True)
                ]
                step = torch.stack(steps).sum()
                if not step.requires_grad:  # of a kernel that is linear in each argument
                    continue
                found = torch.autograd.grad(step, scores, materialize_grads=True)
            times = len(sides) if block.symmetric else 1  # the tile below the diagonal is the transpose
            for (sample, place), product in zip(sides, found, strict=True):
                target = products[sample] if sample < len(products) else None
                if target is not None:
                    target[place].add_(product, alpha=weight * times)
