"""Sums over blocks of pairs, with their gradients, for kernels that are not functions of the distance.

Within a tile, autograd computes the gradients, because the library does not know the derivatives of such a kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from torch_mmd_losses.distances import Pairs, Sample
from torch_mmd_losses.kernels.summands import GramSummand, gram_matrix
from torch_mmd_losses.pairs.tiles import Block, tiles


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
            a = Sample(inputs[0])
            b = a if len(inputs) == 1 else Sample(inputs[1])
            shift = block.shift + rows.start - columns.start
            pairs = Pairs(a, b, distinct=block.distinct, same=block.same, shift=shift)
            tile_total = pairs.total(gram_matrix(summand, pairs))
        total.add_(tile_total.detach(), alpha=times)
        for scores, (_, gradient, place) in zip(inputs, sides, strict=True):
            if gradient is not None and tile_total.requires_grad:
                (found,) = torch.autograd.grad(tile_total, scores, retain_graph=True, materialize_grads=True)
                gradient[place].add_(found, alpha=times)
