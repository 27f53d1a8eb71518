"""Second derivatives of losses of large batches, tile by tile, in memory that grows with the number of samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_mmd_losses.distances import Sample
from torch_mmd_losses.kernels import trained_tensors
from torch_mmd_losses.pairs.batch import WeightedBlock
from torch_mmd_losses.pairs.by_autograd import pair_sum
from torch_mmd_losses.pairs.objective import Objective
from torch_mmd_losses.pairs.tiles import tiles
from torch_mmd_losses.pairs.trained_sums import Trained


def add_hessian_product(
    products: Sequence[Tensor | None],
    kernels: Trained,
    objective: Objective,
    blocks: Sequence[WeightedBlock],
    samples: Sequence[Tensor],
    directions: Sequence[Tensor | None],
    side: int,
    at_once: int = 1,
) -> None:
    """Add the derivatives of `<gradient of a loss, directions>` to `products`.

    Args:
        products: for local real scores, local fake scores and each tensor of the kernels, the tensor to add to; None if
            the derivative is not wanted.
        kernels: the kernels, with the tensors that they are trained through. If there are any, the batch is local.
        objective: the loss.
        blocks: the blocks of pairs.
        samples: the scores of all samples.
        directions: for each sample and each tensor of the kernels, the direction for its gradient, a tensor of the same
            shape; None stands for zero.
        side: number of rows and columns of a tile.
        at_once: how many tiles an operator takes at once.
    """
    stand_ins = trained_tensors.stand_ins_of(kernels.tensors)
    are_rounded = any(tensor.dtype == torch.float16 for tensor in stand_ins)
    for part in blocks:
        weight = getattr(objective.weights, part.group) / part.pairs * part.gradient_weight
        block = part.block
        for rows, columns in tiles(block, side, at_once) if weight else ():
            sides = [(part.a, rows), (part.b, columns)]
            if block.symmetric and rows == columns:
                del sides[1]
            times = len(sides) if block.symmetric else 1  # the tile below the diagonal is the transpose
            scores = [samples[sample][place].detach().requires_grad_() for sample, place in sides]
            leaves = [*scores, *stand_ins]
            along = [directions[sample] for sample, _ in sides]
            steps = [v if v is None else v[place] for v, (_, place) in zip(along, sides, strict=True)]
            steps += directions[len(samples) :]
            if all(step is None for step in steps):
                continue
            with torch.enable_grad():
                first = Sample(scores[0])
                last = first if len(scores) == 1 else Sample(scores[-1])
                pairs = part.pairs_of(first, last, rows.start, columns.start)
                with trained_tensors.replaced(kernels.tensors, stand_ins):
                    sums = [
                        summand.factor * pair_sum(summand, pairs, part.group, objective.bounds)
                        for summand in kernels.summands()
                    ]
                # A sum over a tile could overflow in float16, and its share of the loss could vanish.
                unit = 2.0 ** -(len(scores[0]) * len(scores[-1])).bit_length() if are_rounded else 1.0
                found = _products(torch.stack(sums).sum() * unit, leaves, steps)
            if found is None:
                continue
            targets = [products[sample] if sample < 2 else None for sample, _ in sides]
            places = [t if t is None else t[place] for t, (_, place) in zip(targets, sides, strict=True)]
            for target, product in zip([*places, *products[2:]], found, strict=True):
                if target is not None:
                    target.add_(product, alpha=weight * times / unit)


def _products(total: Tensor, leaves: Sequence[Tensor], steps: Sequence[Tensor | None]) -> Sequence[Tensor] | None:
    """Return the derivatives of `<gradient of a total, steps>` with respect to the leaves; None if all are zero."""
    if not total.requires_grad:  # of a constant
        return None
    slopes = torch.autograd.grad(total, leaves, create_graph=True, materialize_grads=True)
    moved = [(slope * step).sum() for slope, step in zip(slopes, steps, strict=True) if step is not None]
    inner = torch.stack(moved).sum()
    if not inner.requires_grad:  # of a kernel that is linear in its parameters, or in each argument
        return None
    return torch.autograd.grad(inner, leaves, materialize_grads=True)
