"""Sums over blocks of pairs, with their gradients, for kernels that are not functions of the distance.

Within a tile, autograd computes the gradients, because the library does not know the derivatives of such a kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from torch_mmd_losses.distances import Sample
from torch_mmd_losses.kernels.summands import GramSummand
from torch_mmd_losses.pairs.tiles import Block, tiles
from torch_mmd_losses.precision import total_dtype


def add_sum(
    summand: GramSummand, block: Block, total: Tensor, to_a: Tensor | None, to_b: Tensor | None, *, side: int
) -> None:
    """Add the sum over a block of pairs of a summand without its factor, and its gradients, to given tensors.

    Args:
        summand: the kernel.
        block: the pairs.
        total: a scalar, to which the sum is added.
        to_a: a tensor like `block.a`, to which the gradient with respect to `a` is added; None if it is not wanted.
        to_b: the same for `b`. It is None if the block is symmetric, since `to_a` then gets the whole gradient.
        side: number of rows and columns of a tile.
    """
    for rows, columns in tiles(block, side):
        sides = [(block.a[rows], to_a, rows)]
        if not (block.symmetric and rows == columns):
            sides.append((block.b[columns], to_a if block.symmetric else to_b, columns))
        times = len(sides) if block.symmetric else 1  # the tile below the diagonal is the transpose
        with torch.enable_grad():
            inputs = [scores.detach().requires_grad_(gradient is not None) for scores, gradient, _ in sides]
            tile_total = _tile_total(summand, inputs[0], inputs[-1], block, rows, columns)
        total.add_(tile_total.detach(), alpha=times)
        for scores, (_, gradient, place) in zip(inputs, sides, strict=True):
            if gradient is not None and tile_total.requires_grad:
                (found,) = torch.autograd.grad(tile_total, scores, retain_graph=True, materialize_grads=True)
                gradient[place].add_(found, alpha=times)


def _tile_total(summand: GramSummand, a: Tensor, b: Tensor, block: Block, rows: slice, columns: slice) -> Tensor:
    gram = summand.function.values(Sample(a), Sample(b))
    if block.distinct and block.meets_diagonal(rows, columns):
        left_out = torch.zeros(gram.shape, dtype=torch.bool, device=gram.device)
        block.diagonal(left_out, rows, columns).fill_(True)
        gram = gram.masked_fill(left_out, 0)
    return gram.sum(1).sum(dtype=total_dtype(gram.device))
