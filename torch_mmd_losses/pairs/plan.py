"""The decision how each summand of a kernel is evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from torch_mmd_losses import autograd
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.summands import GramSummand, RadialSummand, Summand, has_closed_form, is_trained
from torch_mmd_losses.pairs.batch import Batch
from torch_mmd_losses.pairs.objective import Objective
from torch_mmd_losses.types import Estimator

DENSE_UP_TO = 512
"""Number of real and fake samples together up to which one dense matrix is faster than tiles."""


class Plan(NamedTuple):
    """Everything about a call except the scores; every summand is in one of the first four lists."""

    dense: Sequence[RadialSummand]
    """Kernels of the distance in small batches: one matrix of all distances, gradients written by hand."""
    tiled: Sequence[RadialSummand]
    """Kernels of the distance in large batches: tile by tile, gradients written by hand."""
    gram_tiles: Sequence[GramSummand]
    """Other kernels: tile by tile, gradients by autograd within a tile."""
    by_autograd: Sequence[Summand]
    """Kernels whose sums over all pairs are left to autograd."""
    objectives: Sequence[Objective]
    estimator: Estimator
    batch: Batch
    tile_size: int | None


def make_plan(
    kernel: Kernel,
    real: Tensor,
    fake: Tensor,
    estimator: Estimator,
    *,
    objectives: Sequence[Objective],
    tile_size: int | None,
    batch: Batch,
) -> Plan:
    """Decide how to evaluate each summand of the kernel.

    Gradients are written by hand where plain reverse-mode autograd with respect to the scores is all that follows.
    Everything is left to autograd under `torch.compile` and in function transforms, which have to see each operation.
    So are summands with trained parameters, whose gradients nobody wrote, and summands whose sums have a closed form,
    which need no Gram matrix. In a small batch the time of a loss is the number of operations, which a single dense
    matrix keeps low. Large batches, and batches of several processes, are evaluated in tiles, in memory that grows
    with the number of samples, not of pairs.
    """
    by_hand = autograd.reverse_mode_only(real, fake)
    radial: list[RadialSummand] = []
    others: list[GramSummand] = []
    left: list[Summand] = []
    for summand in kernel._summands():
        if not by_hand or has_closed_form(summand) or is_trained(summand, real):
            left.append(summand)
        elif isinstance(summand, RadialSummand):
            radial.append(summand)
        else:
            others.append(summand)
    is_small = batch.is_local and real.shape[0] + fake.shape[0] <= DENSE_UP_TO
    return Plan(
        radial if is_small else [],
        [] if is_small else radial,
        others,
        left,
        objectives,
        estimator,
        batch,
        tile_size,
    )
