"""Autograd functions for losses with hand-written gradients, which are computed in the forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torch_mmd_losses.hand_written_gradients import GradientByHand, differentiable_gradients
from torch_mmd_losses.pairs import by_autograd, dense, tiled
from torch_mmd_losses.pairs.plan import Plan
from torch_mmd_losses.precision import full_precision


def values(plan: Plan, real: Tensor, fake: Tensor) -> tuple[Tensor, ...]:
    """Return the contribution of the dense and the tiled summands to each objective, in the dtype of the scores."""
    return _Values.apply(real, fake, plan)  # type: ignore[no-untyped-call]


class _Values(GradientByHand):
    takes_batches = True

    @staticmethod
    def forward(ctx: Any, real: Tensor, fake: Tensor, plan: Plan) -> tuple[Tensor, ...]:  # noqa: ANN401
        ctx.set_materialize_grads(False)
        ctx.plan, ctx.wanted = plan, ctx.needs_input_grad[:2]
        found, gradients = _values_and_gradients(plan, real, fake, ctx.wanted)
        ctx.save_for_backward(real, fake, *gradients)
        return tuple([value if value.dtype == real.dtype else value.to(real.dtype) for value in found])

    @staticmethod
    def backward(ctx: Any, *outer: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        real, fake, *gradients = ctx.saved_tensors
        factors = [factor for factor in outer if factor is not None]
        if not factors:
            return None, None, None
        used = [i for i, factor in enumerate(outer) if factor is not None]
        gradients = [gradients[i] for i in used]
        if not torch.is_grad_enabled():
            return (*_split(ctx.wanted, real, fake, _weighted_sum(factors, gradients)), None)
        plan = ctx.plan._replace(objectives=[ctx.plan.objectives[i] for i in used])
        if plan.dense:
            summands = (*plan.dense, *plan.tiled_by_autograd)

            def again(real: Tensor, fake: Tensor) -> tuple[Tensor, ...]:
                return by_autograd.values(plan, summands, real, fake)

            return (*differentiable_gradients(again, (real, fake), factors), None)
        return (*_TiledGradients.apply(real, fake, plan, ctx.wanted, gradients, *factors), None)  # type: ignore[no-untyped-call]


class _TiledGradients(GradientByHand):
    """The gradients of losses of large batches as functions of the scores, differentiable once more."""

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
        return _split(wanted, real, fake, _weighted_sum(outer, gradients))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *along: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        real, fake, *rest = ctx.saved_tensors
        plan, count = ctx.plan, len(ctx.plan.objectives)
        outer, gradients = rest[:count], rest[count:]
        with full_precision(real.device):
            products = tiled.hessian_products(plan, real, fake, ctx.wanted, outer, along)
        directions = torch.cat([direction for direction, want in zip(along, ctx.wanted, strict=True) if want])
        pulls = [
            (gradient * directions).sum().to(factor.dtype) for gradient, factor in zip(gradients, outer, strict=True)
        ]
        return *products, None, None, None, *pulls


def _values_and_gradients(
    plan: Plan, real: Tensor, fake: Tensor, wanted: Sequence[bool]
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the values, and the gradient of each with respect to the wanted scores, real scores first."""
    if not plan.dense:
        return tiled.values_and_gradients(plan, real, fake, wanted)
    values, gradients = dense.values_and_gradients(
        plan.dense, real, fake, plan.estimator, plan.objectives, gradients=True in wanted
    )
    if False in wanted:
        m = real.shape[0]
        gradients = [gradient[:m] if wanted[0] else gradient[m:] for gradient in gradients]
    if plan.tiled_by_autograd:
        more = tiled.values_and_gradients(plan, real, fake, wanted)
        values, gradients = (
            [p + q for p, q in zip(*pair, strict=True)] for pair in zip((values, gradients), more, strict=True)
        )
    return values, gradients


def _weighted_sum(factors: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    total = factors[0] * gradients[0]
    for factor, gradient in zip(factors[1:], gradients[1:], strict=True):
        total.addcmul_(factor, gradient)
    return total


def _split(wanted: Sequence[bool], real: Tensor, fake: Tensor, stacked: Tensor) -> tuple[Tensor | None, ...]:
    """Return the rows of a stacked gradient that belong to real and to fake scores."""
    if False in wanted:
        return tuple(stacked if want else None for want in wanted)
    return torch.split_with_sizes(stacked, [real.shape[0], fake.shape[0]])
