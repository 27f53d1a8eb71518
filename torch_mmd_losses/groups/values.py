"""The values of MMD^2 of many groups: the choice of how to evaluate each summand of a kernel, and their sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torch_mmd_losses import hand_written_gradients
from torch_mmd_losses.groups import by_autograd, linear, stacked, strips, tiled
from torch_mmd_losses.groups.call import Plan, Tensors, is_small, zero_gradients, zeros
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.inner_product import is_linear
from torch_mmd_losses.kernels.summands import (
    GramSummand,
    RadialSummand,
    Summand,
    by_kind,
    is_trained,
)
from torch_mmd_losses.pairs.objective import GENERATOR
from torch_mmd_losses.pairs.objective_values import objective_values
from torch_mmd_losses.precision import full_precision
from torch_mmd_losses.types import Estimator


def group_values(kernel: Kernel, tensors: Tensors, estimator: Estimator, tile_size: int | None = None) -> Tensor:
    """Return MMD^2 of each group `(G,)`, in :func:`total_dtype`, differentiable twice with respect to all tensors.

    Args:
        kernel: the kernel.
        tensors: real scores `(G, m, d)`, fake scores `(G, n, d)`, and weights of any sign that sum to one. With
            weights, the estimator is not "u_statistic".
        estimator: see :func:`torch_mmd_losses.mmd2`.
        tile_size: side length of the tiles used for large groups; None picks a default for the device.
    """
    by_hand = hand_written_gradients.reverse_mode_only(*tensors.present())
    if by_hand and not is_small(tensors) and tensors.scale is None and tensors.real_weights is None:
        summands, found = by_kind(kernel._summands())
        plan = Plan(summands, found, estimator, tile_size)
        if found or not strips.are_possible(plan, tensors):
            return _one_by_one(kernel, tensors, estimator, tile_size)
        return _Values.apply(plan, *tensors)  # type: ignore[no-untyped-call]
    radial: list[RadialSummand] = []
    others: list[GramSummand] = []
    left: list[Summand] = []
    parts = []
    for summand in kernel._summands():
        if is_linear(summand):
            parts.append(summand.factor * linear.values(tensors, estimator))
        elif not by_hand or is_trained(summand, tensors.real[0]):
            left.append(summand)
        elif isinstance(summand, RadialSummand):
            radial.append(summand)
        else:
            others.append(summand)
    plan = Plan(radial, others, estimator, tile_size)
    if radial or others:
        parts.append(_Values.apply(plan, *tensors))  # type: ignore[no-untyped-call]
    if left:
        parts.append(by_autograd.values(left, plan, tensors))
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


def _one_by_one(kernel: Kernel, tensors: Tensors, estimator: Estimator, tile_size: int | None) -> Tensor:
    """Return the values of large groups without weights and scales, by the pass of :func:`torch_mmd_losses.mmd2`."""
    pairs = zip(tensors.real.unbind(), tensors.fake.unbind(), strict=True)
    found = [
        objective_values(kernel, real, fake, estimator, objectives=[GENERATOR], tile_size=tile_size)[0]
        for real, fake in pairs
    ]
    return torch.stack(found).to(zeros(tensors).dtype)


class _Values(hand_written_gradients.GradientByHand):
    """The values, with gradients that are computed in the forward pass."""

    takes_batches = True

    @staticmethod
    def forward(ctx: Any, plan: Plan, *given: Tensor | None) -> Tensor:  # noqa: ANN401
        tensors, ctx.plan, ctx.wanted = Tensors(*given), plan, ctx.needs_input_grad[1:]  # type: ignore[arg-type]
        if plan.radial:
            way = stacked if is_small(tensors) else strips if strips.are_possible(plan, tensors) else tiled
            values, gradients = way.values_and_gradients(plan, tensors, ctx.wanted)
        else:
            values, gradients = zeros(tensors), zero_gradients(tensors, ctx.wanted)
        if plan.others:
            by_autograd.add_values_and_gradients(plan, tensors, ctx.wanted, values, gradients)
        ctx.save_for_backward(*given, *gradients)
        return values

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        saved = ctx.saved_tensors
        given, gradients = saved[: len(ctx.wanted)], saved[len(ctx.wanted) :]
        if torch.is_grad_enabled():
            return None, *_Gradients.apply(ctx.plan, ctx.wanted, outer, gradients, *given)  # type: ignore[no-untyped-call]
        return None, *(None if gradient is None else _times(outer, gradient) for gradient in gradients)


class _Gradients(hand_written_gradients.GradientByHand):
    """The gradients as functions of the tensors, differentiable once more."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        plan: Plan,
        wanted: Sequence[bool],
        outer: Tensor,
        gradients: Sequence[Tensor | None],
        *given: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        ctx.plan, ctx.wanted = plan, wanted
        ctx.save_for_backward(outer, *given, *gradients)
        return tuple(None if gradient is None else _times(outer, gradient) for gradient in gradients)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *along: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        outer, *saved = ctx.saved_tensors
        given, gradients = saved[: len(ctx.wanted)], saved[len(ctx.wanted) :]
        tensors = Tensors(*given)
        if all(direction is None for direction in along):
            return (None,) * (4 + len(given))
        with full_precision(tensors.real.device):
            products = by_autograd.hessian_products(ctx.plan, tensors, ctx.wanted, outer, along)
        pulls = [
            (gradient * direction).reshape(len(outer), -1).sum(1, dtype=outer.dtype)
            for gradient, direction in zip(gradients, along, strict=True)
            if gradient is not None and direction is not None
        ]
        return None, None, torch.stack(pulls).sum(0), None, *products


def _times(outer: Tensor, gradient: Tensor) -> Tensor:
    """Return a gradient times the factor of each group."""
    return gradient * outer.to(gradient.dtype).view(-1, *[1] * (gradient.dim() - 1))
