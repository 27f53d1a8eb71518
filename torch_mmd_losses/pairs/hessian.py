"""Second derivatives for large samples, tile by tile, in memory that grows with the number of samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_mmd_losses.distances import Sample
from torch_mmd_losses.kernels.summands import Leaf
from torch_mmd_losses.pairs.batch import Part
from torch_mmd_losses.pairs.tiled import tiles
from torch_mmd_losses.types import Objective


def add_hessian_product(
    products: Sequence[Tensor | None],
    leaves: Sequence[Leaf],
    objective: Objective,
    parts: Sequence[Part],
    samples: Sequence[Tensor],
    directions: Sequence[Tensor],
    size: int,
) -> None:
    """Add the derivatives of `<gradient of a loss, direction>` with respect to the first samples to `products`.

    Args:
        products: where to add, for each of the first samples; None where no derivative is wanted.
        leaves: the kernel.
        objective: the loss.
        parts: its pairs.
        samples: all samples that there are pairs of.
        directions: a direction for the gradient of each, of its shape.
        size: rows and columns of a tile.
    """
    for part in parts:
        weight = getattr(objective.weights, part.group) / part.pairs * part.gradient
        block = part.block
        for rows, columns in tiles(block, size):
            sides = [(part.a, rows), (part.b, columns)]
            if block.symmetric and rows == columns:
                del sides[1]
            with torch.enable_grad():
                scores = [samples[side][place].detach().requires_grad_() for side, place in sides]
                first, last = Sample(scores[0]), Sample(scores[-1])
                pairs = part.pairs_of(first, first if len(scores) == 1 else last, rows.start, columns.start)
                values = [leaf.factor * pairs.total(leaf.kernel._gram(pairs, objective.bounds)) for leaf in leaves]
                slopes = torch.autograd.grad(torch.stack(values).sum(), scores, create_graph=True)
                steps = [
                    (slope * directions[side][place]).sum() for slope, (side, place) in zip(slopes, sides, strict=True)
                ]
                found = torch.autograd.grad(torch.stack(steps).sum(), scores)
            times = len(sides) if block.symmetric else 1  # the tile below the diagonal is the transpose
            for (side, place), product in zip(sides, found, strict=True):
                target = products[side] if side < len(products) else None
                if target is not None:
                    target[place].add_(product, alpha=weight * times)
