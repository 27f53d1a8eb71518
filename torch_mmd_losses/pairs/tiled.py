"""Losses of large batches with their gradients, block by block and tile by tile."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_mmd_losses.pairs.hessian import add_hessian_product
from torch_mmd_losses.pairs.plan import Plan
from torch_mmd_losses.pairs.tile_sums import sums_with_gradients
from torch_mmd_losses.pairs.tiles import tile_side, tiles_at_once
from torch_mmd_losses.pairs.trained_sums import Trained
from torch_mmd_losses.precision import total_dtype

SHARE_WITH_GRAPH = 4
"""See `share` of :func:`tiles_at_once`: autograd keeps about four times as many matrices as one pass overwrites."""


def values_and_gradients(
    plan: Plan, real: Tensor, fake: Tensor, wanted: Sequence[bool]
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the contribution of the tiled summands to each objective, and its gradient with respect to the scores.

    Args:
        plan: the call.
        real: scores `(m, d)`.
        fake: scores `(n, d)`.
        wanted: whether gradients with respect to real and to fake scores are wanted.

    Returns:
        Scalars in :func:`total_dtype`, and gradients with one row for each wanted score, real scores first.
    """
    batch, objectives = plan.batch, plan.objectives
    side, at_once = tile_side(plan.tile_size, real.device), tiles_at_once(plan.tile_size, real.device)
    samples = batch.samples(real, fake)
    values = torch.zeros(len(objectives), dtype=total_dtype(real.device), device=real.device)
    sizes = [len(scores) if want else 0 for scores, want in zip((real, fake), wanted, strict=True)]
    gradients = [real.new_zeros(sum(sizes), real.shape[1]) for _ in objectives] if any(wanted) else []
    towards = [gradient.split(sizes) for gradient in gradients]
    for part in batch.blocks(samples, plan.estimator):
        sides = (part.a < len(wanted) and wanted[part.a], part.b < len(wanted) and wanted[part.b])
        weights = [getattr(objective.weights, part.group) / part.pairs for objective in objectives]
        used = [i for i, weight in enumerate(weights) if weight and (part.value_weight or any(sides))]
        limits = [tuple(s.profile.limits(part.group, objectives[i].bounds) for s in plan.tiled) for i in used]
        sums = sums_with_gradients(
            plan.tiled, plan.tiled_by_autograd, part.block, limits, wanted=sides, side=side, at_once=at_once
        )
        for i, found in zip(used, sums, strict=True):
            values[i].add_(found.total, alpha=weights[i] * part.value_weight)
            for sample, gradient in ((part.a, found.to_a), (part.b, found.to_b)):
                if gradient is not None:
                    weight = weights[i] * part.gradient_weight * batch.gradient_factor
                    towards[i][sample].add_(gradient, alpha=weight)
    return list(batch.totals(values)), gradients


def hessian_products(
    plan: Plan,
    real: Tensor,
    fake: Tensor,
    wanted: Sequence[bool],
    outer: Sequence[Tensor],
    along: Sequence[Tensor | None],
) -> tuple[Tensor | None, ...]:
    """Return the derivatives of `<gradient, along>` with respect to the scores.

    The gradient is that of the sum of `outer * loss`.

    Args:
        plan: the call.
        real: scores `(m, d)`.
        fake: scores `(n, d)`.
        wanted: whether derivatives with respect to real and to fake scores are wanted.
        outer: a factor for each loss.
        along: a direction for the gradient with respect to real and to fake scores; None stands for zero.
    """
    batch, side = plan.batch, tile_side(plan.tile_size, real.device)
    at_once = tiles_at_once(plan.tile_size, real.device, SHARE_WITH_GRAPH)
    samples = batch.samples(real, fake)
    blocks = batch.blocks(samples, plan.estimator)
    kernels = Trained(plan.tiled, plan.tiled_by_autograd, ())
    products = [torch.zeros_like(scores) if want else None for scores, want in zip((real, fake), wanted, strict=True)]
    for objective, factor in zip(plan.objectives, outer, strict=True):
        steps = (torch.zeros_like(x) if v is None else factor * v for x, v in zip((real, fake), along, strict=True))
        directions = batch.gather(*steps)
        add_hessian_product(products, kernels, objective, blocks, samples, directions, side, at_once)
    return tuple(product if product is None else product * batch.gradient_factor for product in products)
