"""Autograd's view of losses whose gradient is made in the forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.autograd import apart
from torch_mmd_losses.pairs.plan import Plan, compute, hessian_product, is_small


def losses(plan: Plan, real: Tensor, fake: Tensor) -> tuple[Tensor, ...]:
    """Return the losses, scalars in the dtype of the scores, where `autograd.plain_autograd` holds of these."""
    return _Losses.apply(real, fake, plan)  # type: ignore[no-untyped-call]


class _Losses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, real: Tensor, fake: Tensor, plan: Plan) -> tuple[Tensor, ...]:  # noqa: ANN401
        ctx.set_materialize_grads(False)
        ctx.plan, ctx.wanted = plan, ctx.needs_input_grad[:2]
        values, gradients = compute(plan, real, fake, ctx.wanted)
        ctx.save_for_backward(real, fake, *gradients)
        return tuple([value if value.dtype == real.dtype else value.to(real.dtype) for value in values])

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
        plan = ctx.plan._replace(objectives=[ctx.plan.objectives[i] for i in used])
        if is_small(plan, real, fake):
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
        plan, count = ctx.plan, len(ctx.plan.objectives)
        outer, gradients = rest[:count], rest[count:]
        with checks.full_precision(real.device):
            products = hessian_product(plan, real, fake, ctx.wanted, outer, along)
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
    if False in wanted:
        return tuple(stacked if want else None for want in wanted)
    return torch.split_with_sizes(stacked, [real.shape[0], fake.shape[0]])


def _gradients_by_autograd(
    plan: Plan, real: Tensor, fake: Tensor, outer: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Return the gradients of small samples as functions of the scores, for a second derivative."""
    with torch.enable_grad(), checks.full_precision(real.device):
        real, fake = apart(real, fake)
        values = plan.by_autograd(real, fake, plan.objectives)
        factors = [factor.to(value.dtype) for factor, value in zip(outer, values, strict=True)]
        wanted = [scores for scores in (real, fake) if scores.requires_grad]
        found = iter(torch.autograd.grad(values, wanted, factors, create_graph=True))
    return tuple(next(found) if scores.requires_grad else None for scores in (real, fake))
