"""The choice of how to evaluate each summand of a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from torch_mmd_losses import hand_written_gradients
from torch_mmd_losses.kernels.summands import (
    GramSummand,
    RadialSummand,
    Summand,
    by_kind,
    has_closed_form,
    is_trained,
)
from torch_mmd_losses.kernels.trained_tensors import trained_tensors
from torch_mmd_losses.pairs.batch import Batch
from torch_mmd_losses.pairs.objective import Objective
from torch_mmd_losses.pairs.trained_sums import NOTHING, Trained
from torch_mmd_losses.types import Estimator

DENSE_UP_TO = 512
"""Number of real and fake samples together up to which one dense matrix is faster than tiles."""


class Plan(NamedTuple):
    """Everything about a call except the scores. Every summand is in one of the first six fields."""

    dense: Sequence[RadialSummand]
    """Kernels of the distance in small batches: one matrix of all distances, gradients written by hand."""
    tiled: Sequence[RadialSummand]
    """Kernels of the distance in large batches: tile by tile, gradients written by hand."""
    tiled_by_autograd: Sequence[GramSummand]
    """Other kernels: tile by tile, gradients by autograd within a tile."""
    trained: Trained
    """Kernels with trained parameters in large batches: tile by tile, with gradients for the parameters."""
    by_autograd: Sequence[Summand]
    """All remaining kernels: whole Gram matrices or closed forms, differentiated by autograd."""
    of_columns: Sequence[GramSummand]
    """Kernels of some columns of the scores: evaluated as a separate call with these columns."""
    objectives: Sequence[Objective]
    estimator: Estimator
    batch: Batch
    tile_size: int | None


def make_plan(
    summands: Sequence[Summand],
    real: Tensor,
    fake: Tensor,
    estimator: Estimator,
    *,
    objectives: Sequence[Objective],
    tile_size: int | None,
    batch: Batch,
) -> Plan:
    """Decide how to evaluate each summand of a kernel.

    Hand-written gradients are used where only plain reverse-mode autograd with respect to the scores follows. Under
    `torch.compile` and in function transforms, which must see each operation, everything is left to autograd. So are
    summands whose sums have a closed form, which needs no Gram matrix, and summands with trained parameters in small
    batches.

    In a small batch, the time of a loss depends on the number of operations, which a single dense matrix keeps low.
    Large batches, and batches of several processes, are evaluated in tiles. Their memory grows with the number of
    samples, not with the number of pairs.
    """
    by_hand = hand_written_gradients.reverse_mode_only(real, fake)
    radial: list[RadialSummand] = []
    others: list[GramSummand] = []
    left: list[Summand] = []
    of_columns: list[GramSummand] = []
    trained: list[Summand] = []
    tensors: dict[int, Tensor] = {}
    is_small = batch.is_local and real.shape[0] + fake.shape[0] <= DENSE_UP_TO
    for summand in summands:
        if isinstance(summand, GramSummand) and summand.function.of_columns is not None:
            of_columns.append(summand)
        elif not by_hand or has_closed_form(summand):
            left.append(summand)
        elif is_trained(summand, real):
            found = None if is_small else trained_tensors(summand, real)
            if found is None:
                left.append(summand)
            else:
                trained.append(summand)
                tensors |= {id(tensor): tensor for tensor in found}
        elif isinstance(summand, RadialSummand):
            radial.append(summand)
        else:
            others.append(summand)
    return Plan(
        radial if is_small else [],
        [] if is_small else radial,
        others,
        Trained(*by_kind(trained), tuple(tensors.values())) if trained else NOTHING,
        left,
        of_columns,
        objectives,
        estimator,
        batch,
        tile_size,
    )
