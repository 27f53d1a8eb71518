"""Losses with the gradient made in the forward pass, for eager mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses import _checks, _dense, _tiles
from torch_mmd_losses._leaf import Leaf, Limits
from torch_mmd_losses._pairs import total_dtype
from torch_mmd_losses._types import Bounds, Estimator, Group, Row

DENSE_UP_TO = 256
"""Real and fake samples together up to which one dense matrix is faster than tiles."""

GROUPS: tuple[Group, ...] = ("real", "cross", "fake")

TILE = 384
"""Rows and columns of a tile: 1 MB in float32 stays in the second-level cache of a core."""


class Plan(NamedTuple):
    """Everything about a call but the scores."""

    leaves: tuple[Leaf, ...]
    rows: tuple[Row, ...]
    estimator: Estimator
    by_autograd: Callable[[Tensor, Tensor], Sequence[Tensor]]


class Computed(NamedTuple):
    """The losses, and the gradients of each with respect to real and to fake scores."""

    values: list[Tensor]
    to_real: list[Tensor]
    to_fake: list[Tensor]


def applies(leaves: Sequence[Leaf], real: Tensor, fake: Tensor) -> bool:
    """Whether nothing but plain reverse-mode autograd will look at the computation."""
    return (
        bool(leaves)
        and not torch.compiler.is_compiling()
        and torch._C._functorch.peek_interpreter_stack() is None
        and torch.autograd.forward_ad._current_level < 0
        and not any(parameter.requires_grad for leaf in leaves for parameter in leaf.kernel.parameters())
    )


def losses(plan: Plan, real: Tensor, fake: Tensor) -> tuple[Tensor, ...]:
    """Return the loss of each row, scalars in :func:`total_dtype`."""
    return _Losses.apply(real, fake, plan)  # type: ignore[no-untyped-call]


class _Losses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, real: Tensor, fake: Tensor, plan: Plan) -> tuple[Tensor, ...]:  # noqa: ANN401
        ctx.set_materialize_grads(False)
        ctx.plan = plan
        needed = any(ctx.needs_input_grad)
        compute = _small if real.shape[0] + fake.shape[0] <= DENSE_UP_TO else _large
        values, to_real, to_fake = compute(plan, real, fake, needed)
        ctx.save_for_backward(real, fake, *to_real, *to_fake)
        return tuple(values)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        real, fake, *gradients = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (*_differentiable_gradients(ctx.plan, real, fake, outer), None)
        rows = len(ctx.plan.rows)
        to_real = _combine(outer, gradients[:rows]) if ctx.needs_input_grad[0] else None
        to_fake = _combine(outer, gradients[rows:]) if ctx.needs_input_grad[1] else None
        return to_real, to_fake, None


def _combine(outer: Sequence[Tensor | None], gradients: Sequence[Tensor]) -> Tensor | None:
    terms = [
        factor.to(gradient.dtype) * gradient
        for factor, gradient in zip(outer, gradients, strict=True)
        if factor is not None
    ]
    return sum(terms[1:], start=terms[0]) if terms else None


def _differentiable_gradients(
    plan: Plan, real: Tensor, fake: Tensor, outer: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Return the gradients as functions of the scores, for a second derivative."""
    with torch.enable_grad(), _checks.full_precision(real.device):
        values = plan.by_autograd(real, fake)
        used = [(value, factor) for value, factor in zip(values, outer, strict=True) if factor is not None]
        wanted = [x for x in (real, fake) if x.requires_grad]
        found = torch.autograd.grad(
            [value for value, _ in used], wanted, [factor for _, factor in used], create_graph=True
        )
    remaining = iter(found)
    return [next(remaining) if x.requires_grad else None for x in (real, fake)]


def _small(plan: Plan, real: Tensor, fake: Tensor, gradients: bool) -> Computed:
    rows = []
    for row in plan.rows:
        groups = [_limits(plan.leaves, group, row.bounds) for group in GROUPS]
        rows.append((row.weights, tuple(zip(*groups, strict=True))))
    values, stacked = _dense.losses_and_gradients(plan.leaves, real, fake, plan.estimator, rows, gradients=gradients)
    m = real.shape[0]
    both = [gradient.to(real.dtype).split([m, fake.shape[0]]) for gradient in stacked]
    return Computed(values, [to_real for to_real, _ in both], [to_fake for _, to_fake in both])


def _large(plan: Plan, real: Tensor, fake: Tensor, gradients: bool) -> Computed:
    zero = torch.zeros((), dtype=total_dtype(real.device), device=real.device)
    values = [zero.clone() for _ in plan.rows]
    to_real = [torch.zeros_like(real) for _ in plan.rows] if gradients else []
    to_fake = [torch.zeros_like(fake) for _ in plan.rows] if gradients else []
    within, aligned = plan.estimator != "biased", plan.estimator == "u_statistic"
    groups: list[tuple[Group, Tensor, Tensor, bool]] = [
        ("real", real, real, within),
        ("cross", real, fake, aligned),
        ("fake", fake, fake, within),
    ]
    for place, (group, a, b, distinct) in enumerate(groups):
        weights = [row.weights[place] for row in plan.rows]
        limits = [_limits(plan.leaves, group, row.bounds) for row in plan.rows]
        choices = list(dict.fromkeys(choice for choice, weight in zip(limits, weights, strict=True) if weight))
        sums = _tiles.pair_sums(plan.leaves, a, b, choices, distinct=distinct, gradients=gradients, size=TILE)
        count = a.shape[0] * b.shape[0] - (a.shape[0] if distinct else 0)
        for i, weight in enumerate(weights):
            if weight:
                found = sums[choices.index(limits[i])]
                values[i] += weight / count * found.total
                if found.to_a is not None and group != "fake":
                    to_real[i].add_(found.to_a, alpha=weight / count)
                if found.to_b is not None and group != "real":
                    to_fake[i].add_(found.to_b, alpha=weight / count)
    return Computed(values, to_real, to_fake)


def _limits(leaves: Sequence[Leaf], group: Group, bounds: Bounds) -> tuple[Limits, ...]:
    return tuple(leaf.kernel._limits(group, bounds) for leaf in leaves)
