"""Losses with the gradient made in the forward pass, for eager mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses import _checks, _dense, _second, _tiles
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


class Block(NamedTuple):
    """A group of pairs.

    `a` and `b` are 0 for real and 1 for fake scores, `distinct` leaves out the pairs of equal index, and `pairs` is how
    many there are.
    """

    group: Group
    a: int
    b: int
    distinct: bool
    pairs: int

    @property
    def within(self) -> bool:
        """Whether the pairs are made of one sample."""
        return self.a == self.b


class Computed(NamedTuple):
    """The losses, and the gradients of each with respect to real and to fake scores."""

    values: list[Tensor]
    to_real: list[Tensor]
    to_fake: list[Tensor]


def applies(leaves: Sequence[Leaf], real: Tensor, fake: Tensor) -> bool:
    """Whether nothing but plain reverse-mode autograd will look at the computation."""
    return (
        not torch.compiler.is_compiling()
        and len(leaves) > 0
        and all(type(scores) in (Tensor, torch.nn.Parameter) for scores in (real, fake))
        and torch._C._functorch.peek_interpreter_stack() is None
        and torch.autograd.forward_ad._current_level < 0
        and not any(leaf.kernel._trained(real) for leaf in leaves)
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
        if not torch.is_grad_enabled():
            rows = len(ctx.plan.rows)
            to_real = _combine(outer, gradients[:rows]) if ctx.needs_input_grad[0] else None
            to_fake = _combine(outer, gradients[rows:]) if ctx.needs_input_grad[1] else None
            return to_real, to_fake, None
        if real.shape[0] + fake.shape[0] <= DENSE_UP_TO:
            return (*_gradients_by_autograd(ctx.plan, real, fake, outer), None)
        used = [i for i, factor in enumerate(outer) if factor is not None]
        plan = ctx.plan._replace(rows=tuple(ctx.plan.rows[i] for i in used))
        kept = [gradients[i + start] for start in (0, len(ctx.plan.rows)) for i in used]
        return (*_Gradients.apply(real, fake, plan, kept, *(outer[i] for i in used)), None)  # type: ignore[no-untyped-call]


class _Gradients(torch.autograd.Function):
    """The gradients of large samples as functions of the scores: differentiable once more."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        real: Tensor,
        fake: Tensor,
        plan: Plan,
        gradients: list[Tensor],
        *outer: Tensor,
    ) -> tuple[Tensor | None, ...]:
        ctx.plan = plan
        ctx.save_for_backward(real, fake, *outer, *gradients)
        rows = len(plan.rows)
        return _combine(outer, gradients[:rows]), _combine(outer, gradients[rows:])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, along_real: Tensor, along_fake: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        real, fake, *rest = ctx.saved_tensors
        rows = len(ctx.plan.rows)
        outer, to_real, to_fake = rest[:rows], rest[rows : 2 * rows], rest[2 * rows :]
        directions = (along_real, along_fake)
        blocks = _blocks(ctx.plan.estimator, len(real), len(fake))
        with _checks.full_precision(real.device):
            products = _second.hessian_product(ctx.plan, blocks, (real, fake), outer, directions, TILE)
        pulls = [
            ((p * along_real).sum() + (q * along_fake).sum()).to(factor.dtype)
            for p, q, factor in zip(to_real, to_fake, outer, strict=True)
        ]
        return *products, None, None, *pulls


def _combine(outer: Sequence[Tensor | None], gradients: Sequence[Tensor]) -> Tensor | None:
    terms = [
        factor.to(gradient.dtype) * gradient
        for factor, gradient in zip(outer, gradients, strict=True)
        if factor is not None
    ]
    return sum(terms[1:], start=terms[0]) if terms else None


def _gradients_by_autograd(
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
    samples = (real, fake)
    zero = torch.zeros((), dtype=total_dtype(real.device), device=real.device)
    values = [zero.clone() for _ in plan.rows]
    towards = [[torch.zeros_like(scores) for _ in plan.rows] if gradients else [] for scores in samples]
    for place, block in enumerate(_blocks(plan.estimator, len(real), len(fake))):
        weights = [row.weights[place] / block.pairs for row in plan.rows]
        limits = [_limits(plan.leaves, block.group, row.bounds) for row in plan.rows]
        choices = list(dict.fromkeys(choice for choice, weight in zip(limits, weights, strict=True) if weight))
        b = None if block.within else samples[block.b]
        sums = _tiles.pair_sums(
            plan.leaves, samples[block.a], b, choices, distinct=block.distinct, gradients=gradients, size=TILE
        )
        for i, weight in enumerate(weights):
            if weight:
                found = sums[choices.index(limits[i])]
                values[i] += weight * found.total
                for side, gradient in zip(sorted({block.a, block.b}), found.gradients, strict=gradients):
                    towards[side][i].add_(gradient, alpha=weight)
    return Computed(values, *towards)


def _blocks(estimator: Estimator, m: int, n: int) -> list[Block]:
    within, aligned = estimator != "biased", estimator == "u_statistic"
    return [
        Block("real", 0, 0, within, m * m - m if within else m * m),
        Block("cross", 0, 1, aligned, m * n - m if aligned else m * n),
        Block("fake", 1, 1, within, n * n - n if within else n * n),
    ]


def _limits(leaves: Sequence[Leaf], group: Group, bounds: Bounds) -> tuple[Limits, ...]:
    return tuple(leaf.kernel._limits(group, bounds) for leaf in leaves)
