"""Losses with the gradient made in the forward pass, for eager mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses import _checks, _dense, _second, _sums
from torch_mmd_losses._leaf import UNBOUNDED, Leaf, Limits
from torch_mmd_losses._pairs import total_dtype
from torch_mmd_losses._parts import Scope
from torch_mmd_losses._tiles import tile_size
from torch_mmd_losses._types import GROUPS, Bounds, Estimator, Group, Row


class Plan(NamedTuple):
    """Everything about a call but the scores."""

    radial: Sequence[Leaf]
    general: Sequence[Leaf]
    rows: Sequence[Row]
    estimator: Estimator
    scope: Scope
    tile: int | None
    by_autograd: Callable[[Tensor, Tensor, Sequence[Row]], Sequence[Tensor]]


class Computed(NamedTuple):
    """The losses in :func:`total_dtype`, and the gradient of each: of the scores that want one, real ones first."""

    values: list[Tensor]
    gradients: list[Tensor]


def applies(real: Tensor, fake: Tensor) -> bool:
    """Whether nothing but plain reverse-mode autograd will look at the computation."""
    return (
        not torch.compiler.is_compiling()
        and all(type(scores) in (Tensor, torch.nn.Parameter) for scores in (real, fake))
        and torch._C._functorch.peek_interpreter_stack() is None
        and torch.autograd.forward_ad._current_level < 0
    )


def losses(plan: Plan, real: Tensor, fake: Tensor) -> tuple[Tensor, ...]:
    """Return the loss of each row, scalars in the dtype of the scores."""
    return _Losses.apply(real, fake, plan)  # type: ignore[no-untyped-call]


class _Losses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, real: Tensor, fake: Tensor, plan: Plan) -> tuple[Tensor, ...]:  # noqa: ANN401
        ctx.set_materialize_grads(False)
        wanted = ctx.needs_input_grad[:2]
        ctx.plan, ctx.wanted = plan, wanted
        values, gradients = _compute(plan, real, fake, wanted)
        ctx.save_for_backward(real, fake, *gradients)
        return tuple(value.to(real.dtype) for value in values)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        real, fake, *gradients = ctx.saved_tensors
        factors = [factor for factor in outer if factor is not None]
        if not factors:
            return None, None, None
        used = [i for i, factor in enumerate(outer) if factor is not None]
        gradients = [gradients[i] for i in used]
        if not torch.is_grad_enabled():
            return (*_split(ctx.wanted, real, fake, _weigh(factors, gradients)), None)
        plan = ctx.plan._replace(rows=[ctx.plan.rows[i] for i in used])
        if _is_small(plan, real, fake):
            return (*_gradients_by_autograd(plan, real, fake, factors), None)
        return (*_Gradients.apply(real, fake, plan, ctx.wanted, gradients, *factors), None)  # type: ignore[no-untyped-call]


class _Gradients(torch.autograd.Function):
    """The gradients of large samples as functions of the scores: differentiable once more."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        real: Tensor,
        fake: Tensor,
        plan: Plan,
        wanted: Sequence[bool],
        gradients: list[Tensor],
        *outer: Tensor,
    ) -> tuple[Tensor | None, ...]:
        ctx.plan, ctx.wanted = plan, wanted
        ctx.save_for_backward(real, fake, *outer, *gradients)
        return _split(wanted, real, fake, _weigh(outer, gradients))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *along: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        real, fake, *rest = ctx.saved_tensors
        plan, rows = ctx.plan, len(ctx.plan.rows)
        outer, gradients = rest[:rows], rest[rows:]
        with _checks.full_precision(real.device):
            products = _hessian_product(plan, real, fake, ctx.wanted, outer, along)
        directions = torch.cat([direction for direction, want in zip(along, ctx.wanted, strict=True) if want])
        pulls = [
            (gradient * directions).sum().to(factor.dtype) for gradient, factor in zip(gradients, outer, strict=True)
        ]
        return *products, None, None, None, *pulls


def _weigh(outer: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    total = outer[0] * gradients[0]
    for factor, gradient in zip(outer[1:], gradients[1:], strict=True):
        total.addcmul_(factor, gradient)
    return total


def _split(wanted: Sequence[bool], real: Tensor, fake: Tensor, stacked: Tensor) -> tuple[Tensor | None, ...]:
    """Return the parts of a stacked gradient that belong to real and to fake scores."""
    if not all(wanted):
        return tuple(stacked if want else None for want in wanted)
    return torch.split_with_sizes(stacked, [real.shape[0], fake.shape[0]])


def _gradients_by_autograd(
    plan: Plan, real: Tensor, fake: Tensor, outer: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Return the gradients of small samples as functions of the scores, for a second derivative."""
    with torch.enable_grad(), _checks.full_precision(real.device):
        values = plan.by_autograd(real, fake, plan.rows)
        factors = [factor.to(value.dtype) for factor, value in zip(outer, values, strict=True)]
        wanted = [scores for scores in (real, fake) if scores.requires_grad]
        found = iter(torch.autograd.grad(values, wanted, factors, create_graph=True))
    return tuple(next(found) if scores.requires_grad else None for scores in (real, fake))


def _compute(plan: Plan, real: Tensor, fake: Tensor, wanted: Sequence[bool]) -> Computed:
    if not _is_small(plan, real, fake):
        return _large(plan, real, fake, wanted)
    small = _small(plan, real, fake, wanted)
    if not plan.general:
        return small
    large = _large(plan._replace(radial=()), real, fake, wanted)
    return Computed(*([p + q for p, q in zip(*pair, strict=True)] for pair in zip(small, large, strict=True)))


def _is_small(plan: Plan, real: Tensor, fake: Tensor) -> bool:
    enough = real.shape[0] + fake.shape[0]
    return bool(plan.radial) and plan.scope.local and _dense.suits(enough, real.shape[1], real.device)


def _small(plan: Plan, real: Tensor, fake: Tensor, wanted: Sequence[bool]) -> Computed:
    rows = [(row.weights, _block_limits(plan.radial, row.bounds)) for row in plan.rows]
    values, gradients = _dense.losses_and_gradients(
        plan.radial, real, fake, plan.estimator, rows, gradients=any(wanted)
    )
    if not all(wanted):
        m = real.shape[0]
        gradients = [gradient[:m] if wanted[0] else gradient[m:] for gradient in gradients]
    return Computed(values, gradients)


def _large(plan: Plan, real: Tensor, fake: Tensor, wanted: Sequence[bool]) -> Computed:
    size = tile_size(plan.tile, real.device)
    samples = plan.scope.samples(real, fake)
    values = torch.zeros(len(plan.rows), dtype=total_dtype(real.device), device=real.device)
    sizes = [len(scores) if want else 0 for scores, want in zip((real, fake), wanted, strict=True)]
    gradients = [real.new_zeros(sum(sizes), real.shape[1]) for _ in plan.rows] if any(wanted) else []
    towards = [gradient.split(sizes) for gradient in gradients]
    for part in plan.scope.parts(samples, plan.estimator):
        sides = (part.a < len(wanted) and wanted[part.a], part.b < len(wanted) and wanted[part.b])
        weights = [getattr(row.weights, part.group) / part.pairs for row in plan.rows]
        used = [i for i, weight in enumerate(weights) if weight and (part.value or any(sides))]
        limits = [_limits(plan.radial, part.group, plan.rows[i].bounds) for i in used]
        found = _sums.pair_sums(plan.radial, plan.general, part.block, limits, wanted=sides, size=size)
        for i, sums in zip(used, found, strict=True):
            values[i].add_(sums.total, alpha=weights[i] * part.value)
            for side, gradient in ((part.a, sums.to_a), (part.b, sums.to_b)):
                if gradient is not None:
                    towards[i][side].add_(gradient, alpha=weights[i] * part.gradient * plan.scope.gradient_factor)
    return Computed(list(plan.scope.totals(values)), gradients)


def _hessian_product(
    plan: Plan,
    real: Tensor,
    fake: Tensor,
    wanted: Sequence[bool],
    outer: Sequence[Tensor],
    along: Sequence[Tensor | None],
) -> tuple[Tensor | None, ...]:
    size = tile_size(plan.tile, real.device)
    samples = plan.scope.samples(real, fake)
    parts = plan.scope.parts(samples, plan.estimator)
    products = [torch.zeros_like(scores) if want else None for scores, want in zip((real, fake), wanted, strict=True)]
    for row, factor in zip(plan.rows, outer, strict=True):
        steps = (torch.zeros_like(x) if v is None else factor * v for x, v in zip((real, fake), along, strict=True))
        directions = plan.scope.samples(*steps)
        _second.add_hessian_product(products, (*plan.radial, *plan.general), row, parts, samples, directions, size)
    return tuple(product if product is None else product * plan.scope.gradient_factor for product in products)


def _block_limits(leaves: Sequence[Leaf], bounds: Bounds) -> list[_dense.BlockLimits] | None:
    if bounds == "none":
        return None
    real, cross, fake = (_limits(leaves, group, bounds) for group in GROUPS)
    limits = list(zip(real, cross, fake, strict=True))
    return None if all(limit == UNBOUNDED for blocks in limits for limit in blocks) else limits


def _limits(leaves: Sequence[Leaf], group: Group, bounds: Bounds) -> tuple[Limits, ...]:
    return tuple(leaf.kernel._limits(group, bounds) for leaf in leaves)
