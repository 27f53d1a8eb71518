"""Sums over pairs for kernels that are no functions of the distance, tile by tile through autograd."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torch_mmd_losses.distances import total_dtype
from torch_mmd_losses.pairs.tiled import Block, PairSums, Wanted, tiles

if TYPE_CHECKING:
    from torch_mmd_losses.kernels.base import Kernel


def pair_sums(kernel: Kernel, block: Block, *, wanted: Wanted, size: int) -> PairSums:
    """Return the sum of any kernel over all pairs of a block: the arguments of :func:`tiled.pair_sums`."""
    sums = PairSums.zeros(block, wanted)
    for rows, columns in tiles(block, size):
        sides = [(block.a[rows], sums.to_a, rows)]
        if not (block.symmetric and rows == columns):
            sides.append((block.b[columns], sums.to_a if block.symmetric else sums.to_b, columns))
        times = len(sides) if block.symmetric else 1  # the tile below the diagonal is the transpose
        with torch.enable_grad():
            leaves = [scores.detach().requires_grad_(gradient is not None) for scores, gradient, _ in sides]
            tile_total = _total(kernel, leaves[0], leaves[-1], block, rows, columns)
        sums.total.add_(tile_total.detach(), alpha=times)
        for leaf, (_, gradient, part) in zip(leaves, sides, strict=True):
            if gradient is not None and tile_total.requires_grad:
                (found,) = torch.autograd.grad(tile_total, leaf, retain_graph=True, materialize_grads=True)
                gradient[part].add_(found, alpha=times)
    return sums


def _total(kernel: Kernel, a: Tensor, b: Tensor, block: Block, rows: slice, columns: slice) -> Tensor:
    gram = kernel._checked(kernel.forward(a, b), (a.shape[0], b.shape[0]))
    if block.distinct and block.meets_diagonal(rows, columns):
        left_out = torch.zeros(gram.shape, dtype=torch.bool, device=gram.device)
        block.diagonal(left_out, rows, columns).fill_(True)
        gram = gram.masked_fill(left_out, 0)
    return gram.sum(1).sum(dtype=total_dtype(gram.device))
