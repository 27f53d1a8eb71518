"""Sums over the pairs of a block for any kernel: functions of the distance together, others one by one."""

from __future__ import annotations

from collections.abc import Sequence

from torch_mmd_losses.kernels.summands import Leaf, Limits
from torch_mmd_losses.pairs import general as any_kernel
from torch_mmd_losses.pairs import tiled
from torch_mmd_losses.pairs.tiled import Block, PairSums, Wanted


def pair_sums(
    radial: Sequence[Leaf],
    general: Sequence[Leaf],
    block: Block,
    limits: Sequence[tuple[Limits, ...]],
    *,
    wanted: Wanted,
    size: int,
) -> list[PairSums]:
    """Return the sum of a kernel over all pairs of a block, for each choice of bounds of its radial parts.

    Choices that are the same are computed once. For the arguments see :func:`torch_mmd_losses.pairs.tiled.pair_sums`.
    """
    choices = list(dict.fromkeys(limits))
    if radial and choices:
        sums = tiled.pair_sums(radial, block, choices, wanted=wanted, size=size)
    else:
        sums = [PairSums.zeros(block, wanted) for _ in choices]
    for leaf in general if choices else ():
        more = any_kernel.pair_sums(leaf.kernel, block, wanted=wanted, size=size)
        for found in sums:
            found.add(more, leaf.factor)
    return [sums[choices.index(choice)] for choice in limits]
