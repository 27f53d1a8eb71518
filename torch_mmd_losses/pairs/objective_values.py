"""The values of losses on a batch: the entry to the passes over pairs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor

from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.columns import selected
from torch_mmd_losses.kernels.contract import OfColumns
from torch_mmd_losses.kernels.summands import Summand, with_factor
from torch_mmd_losses.pairs import by_autograd, hand_written, trained
from torch_mmd_losses.pairs.batch import LOCAL, Batch
from torch_mmd_losses.pairs.objective import Objective
from torch_mmd_losses.pairs.plan import make_plan
from torch_mmd_losses.types import Estimator


def objective_values(
    kernel: Kernel,
    real: Tensor,
    fake: Tensor,
    estimator: Estimator,
    *,
    objectives: Sequence[Objective],
    tile_size: int | None = None,
    batch: Batch = LOCAL,
) -> tuple[Tensor, ...]:
    """Return the value of each objective, all from one set of distances.

    Args:
        kernel: the kernel.
        real: checked scores `(m, d)`.
        fake: checked scores `(n, d)`.
        estimator: see :func:`torch_mmd_losses.mmd2`.
        objectives: the losses.
        tile_size: side length of the tiles used for large batches; None picks a default for the device.
        batch: the samples that the losses are computed on.

    Returns:
        Scalars in the dtype of the scores, differentiable twice.
    """
    return _values(kernel._summands(), real, fake, estimator, objectives, tile_size, batch)


def _values(
    summands: Sequence[Summand],
    real: Tensor,
    fake: Tensor,
    estimator: Estimator,
    objectives: Sequence[Objective],
    tile_size: int | None,
    batch: Batch,
) -> tuple[Tensor, ...]:
    plan = make_plan(summands, real, fake, estimator, objectives=objectives, tile_size=tile_size, batch=batch)
    if not (plan.by_autograd or plan.of_columns or plan.trained.tensors):
        return hand_written.values(plan, real, fake)
    parts = []
    if plan.dense or plan.tiled or plan.tiled_by_autograd:
        parts.append(hand_written.values(plan, real, fake))
    if plan.trained.tensors:
        parts.append(trained.values(plan, real, fake))
    if plan.by_autograd:
        parts.append(by_autograd.values(plan, plan.by_autograd, real, fake))
    for factor, _, function in plan.of_columns:
        ranges, inner = cast(OfColumns, function.of_columns)
        own = [with_factor(factor * summand.factor, summand) for summand in inner]
        change = partial(selected, ranges=ranges)
        columns = change(real), change(fake)
        parts.append(_values(own, *columns, estimator, objectives, tile_size, batch.changed(change)))
    return tuple(torch.stack(values).sum().to(real.dtype) for values in zip(*parts, strict=True))
