"""Losses with their gradients in one pass over the pairs: dense for small samples, in tiles for large ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses.distances import total_dtype
from torch_mmd_losses.kernels.summands import UNBOUNDED, Leaf, Limits
from torch_mmd_losses.pairs import dense, hessian
from torch_mmd_losses.pairs import sums as block_sums
from torch_mmd_losses.pairs.batch import Scope
from torch_mmd_losses.pairs.tiled import side_of_tiles
from torch_mmd_losses.types import GROUPS, Bounds, Estimator, Group, Objective


class Plan(NamedTuple):
    """Everything about a call but the scores."""

    radial: Sequence[Leaf]
    general: Sequence[Leaf]
    objectives: Sequence[Objective]
    estimator: Estimator
    scope: Scope
    tile: int | None
    by_autograd: Callable[[Tensor, Tensor, Sequence[Objective]], Sequence[Tensor]]


Computed = tuple[list[Tensor], list[Tensor]]
"""The losses, and the gradient of each: of the scores that want one, real ones first."""


def compute(plan: Plan, real: Tensor, fake: Tensor, wanted: Sequence[bool]) -> Computed:
    """Return the losses and the gradients that are wanted, of real and of fake scores."""
    if not is_small(plan, real, fake):
        return _tiled(plan, real, fake, wanted)
    objectives = []
    for weights, bounds in plan.objectives:
        objectives.append((weights, None if bounds == "none" else _block_limits(plan.radial, bounds)))
    values, gradients = dense.losses_and_gradients(
        plan.radial, real, fake, plan.estimator, objectives, gradients=True in wanted
    )
    if False in wanted:
        m = real.shape[0]
        gradients = [gradient[:m] if wanted[0] else gradient[m:] for gradient in gradients]
    if plan.general:
        more = _tiled(plan._replace(radial=()), real, fake, wanted)
        values, gradients = (
            [p + q for p, q in zip(*pair, strict=True)] for pair in zip((values, gradients), more, strict=True)
        )
    return values, gradients


def is_small(plan: Plan, real: Tensor, fake: Tensor) -> bool:
    """Whether the dense pass computes the parts of the kernel that are functions of the distance."""
    return bool(plan.radial) and plan.scope.local and dense.suits(real.shape[0] + fake.shape[0])


def _tiled(plan: Plan, real: Tensor, fake: Tensor, wanted: Sequence[bool]) -> Computed:
    size = side_of_tiles(plan.tile, real.device)
    samples = plan.scope.samples(real, fake)
    values = torch.zeros(len(plan.objectives), dtype=total_dtype(real.device), device=real.device)
    sizes = [len(scores) if want else 0 for scores, want in zip((real, fake), wanted, strict=True)]
    gradients = [real.new_zeros(sum(sizes), real.shape[1]) for _ in plan.objectives] if any(wanted) else []
    towards = [gradient.split(sizes) for gradient in gradients]
    for part in plan.scope.parts(samples, plan.estimator):
        sides = (part.a < len(wanted) and wanted[part.a], part.b < len(wanted) and wanted[part.b])
        weights = [getattr(objective.weights, part.group) / part.pairs for objective in plan.objectives]
        used = [i for i, weight in enumerate(weights) if weight and (part.value or any(sides))]
        limits = [_limits(plan.radial, part.group, plan.objectives[i].bounds) for i in used]
        found = block_sums.pair_sums(plan.radial, plan.general, part.block, limits, wanted=sides, size=size)
        for i, sums in zip(used, found, strict=True):
            values[i].add_(sums.total, alpha=weights[i] * part.value)
            for side, gradient in ((part.a, sums.to_a), (part.b, sums.to_b)):
                if gradient is not None:
                    towards[i][side].add_(gradient, alpha=weights[i] * part.gradient * plan.scope.gradient_factor)
    return list(plan.scope.totals(values)), gradients


def hessian_product(
    plan: Plan,
    real: Tensor,
    fake: Tensor,
    wanted: Sequence[bool],
    outer: Sequence[Tensor],
    along: Sequence[Tensor | None],
) -> tuple[Tensor | None, ...]:
    """Return the derivatives of `<gradient, along>` of the sum of `outer * loss`, where they are wanted."""
    size = side_of_tiles(plan.tile, real.device)
    samples = plan.scope.samples(real, fake)
    parts = plan.scope.parts(samples, plan.estimator)
    products = [torch.zeros_like(scores) if want else None for scores, want in zip((real, fake), wanted, strict=True)]
    for objective, factor in zip(plan.objectives, outer, strict=True):
        steps = (torch.zeros_like(x) if v is None else factor * v for x, v in zip((real, fake), along, strict=True))
        directions = plan.scope.directions(*steps)
        hessian.add_hessian_product(
            products, (*plan.radial, *plan.general), objective, parts, samples, directions, size
        )
    return tuple(product if product is None else product * plan.scope.gradient_factor for product in products)


def _block_limits(leaves: Sequence[Leaf], bounds: Bounds) -> list[dense.BlockLimits] | None:
    real, cross, fake = (_limits(leaves, group, bounds) for group in GROUPS)
    limits = list(zip(real, cross, fake, strict=True))
    return None if all(limit == UNBOUNDED for blocks in limits for limit in blocks) else limits


def _limits(leaves: Sequence[Leaf], group: Group, bounds: Bounds) -> tuple[Limits, ...]:
    return tuple(leaf.kernel._limits(group, bounds) for leaf in leaves)
