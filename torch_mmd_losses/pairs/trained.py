"""Losses of large batches with trained kernels: gradients for scores and parameters in memory linear in the samples.

Each tile is evaluated with its gradients, and evaluated again for second derivatives. To autograd, the tensors that the
kernel is trained through are inputs like the scores, see :mod:`torch_mmd_losses.kernels.trained_tensors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torch_mmd_losses.hand_written_gradients import GradientByHand
from torch_mmd_losses.kernels.trained_tensors import UnknownTensorError
from torch_mmd_losses.pairs import by_autograd
from torch_mmd_losses.pairs.hessian import add_hessian_product
from torch_mmd_losses.pairs.plan import Plan
from torch_mmd_losses.pairs.trained_sums import Wanted, sums_with_gradients
from torch_mmd_losses.precision import full_precision, total_dtype

Gradients = list[Tensor | None]
"""The gradient of a loss with respect to real scores, fake scores and each tensor of the kernels."""


def values(plan: Plan, real: Tensor, fake: Tensor) -> tuple[Tensor, ...]:
    """Return the contribution of the trained summands to each objective, scalars in :func:`total_dtype`."""
    kernels = plan.trained
    try:
        return _Values.apply(plan, torch.is_grad_enabled(), real, fake, *kernels.tensors)  # type: ignore[no-untyped-call]
    except UnknownTensorError:  # a tensor that only some distances or scores lead to
        return by_autograd.values(plan, kernels.summands(), real, fake)


class _Values(GradientByHand):
    takes_batches = True

    @staticmethod
    def forward(ctx: Any, plan: Plan, recorded: bool, *inputs: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401
        ctx.set_materialize_grads(False)
        wanted = [recorded and need for need in ctx.needs_input_grad[2:]]
        found, gradients = _values_and_gradients(plan, inputs, wanted)
        ctx.plan, ctx.wanted = plan, wanted
        ctx.save_for_backward(*inputs, *[gradient for each in gradients for gradient in each if gradient is not None])
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        inputs, gradients = ctx.saved_tensors[: len(ctx.wanted)], ctx.saved_tensors[len(ctx.wanted) :]
        count = sum(ctx.wanted)
        used = [i for i, factor in enumerate(outer) if factor is not None]
        factors = [factor for factor in outer if factor is not None]
        if not factors:
            return (None, None, *[None] * len(inputs))
        plan = ctx.plan._replace(objectives=[ctx.plan.objectives[i] for i in used])
        saved = [gradients[i * count : (i + 1) * count] for i in used]
        return None, None, *_Gradients.apply(plan, ctx.wanted, saved, *inputs, *factors)  # type: ignore[no-untyped-call]


class _Gradients(GradientByHand):
    """The gradients of losses as functions of scores and parameters, differentiable once more."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        plan: Plan,
        wanted: Sequence[bool],
        saved: Sequence[Sequence[Tensor]],
        *inputs_and_outer: Tensor,
    ) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        ctx.plan, ctx.wanted = plan, wanted
        outer = inputs_and_outer[len(wanted) :]
        ctx.save_for_backward(*inputs_and_outer, *[gradient for each in saved for gradient in each])
        totals = iter([_weighted_sum(outer, parts) for parts in zip(*saved, strict=True)])
        return tuple(next(totals) if want else None for want in wanted)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *along: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        plan, wanted = ctx.plan, ctx.wanted
        if all(direction is None for direction in along):
            return (None,) * len(ctx.needs_input_grad)
        if not plan.batch.is_local:
            raise RuntimeError(
                "global_batch: expected a trained kernel to be differentiated once, got a second derivative, which "
                "would need the parameters of all processes"
            )
        size, count = len(wanted), len(plan.objectives)
        saved = ctx.saved_tensors
        inputs, outer, rest = saved[:size], saved[size : size + count], saved[size + count :]
        with full_precision(inputs[0].device):
            products = _hessian_products(plan, inputs, wanted, outer, along)
        directions = [direction for direction, want in zip(along, wanted, strict=True) if want]
        pulls = []
        for i in range(count):
            gradients = rest[i * len(directions) : (i + 1) * len(directions)]
            parts = [
                (gradient * direction).sum(dtype=outer[i].dtype)
                for gradient, direction in zip(gradients, directions, strict=True)
                if direction is not None
            ]
            pulls.append(torch.stack(parts).sum() if parts else None)
        return None, None, None, *products, *pulls


def _values_and_gradients(
    plan: Plan, inputs: Sequence[Tensor], wanted: Sequence[bool]
) -> tuple[list[Tensor], list[Gradients]]:
    """Return the contribution of the trained summands to each objective, and its gradient."""
    real, fake, *tensors = inputs
    batch, objectives, side = plan.batch, plan.objectives, plan.trained.side(plan.tile_size, real.device)
    samples = batch.samples(real, fake)
    values = torch.zeros(len(objectives), dtype=total_dtype(real.device), device=real.device)
    # Gradients of parameters are sums over all pairs, like values.
    dtypes = [real.dtype, fake.dtype, *[total_dtype(real.device)] * len(tensors)]
    gradients: list[Gradients] = [
        [
            torch.zeros_like(tensor, dtype=dtype) if want else None
            for tensor, dtype, want in zip(inputs, dtypes, wanted, strict=True)
        ]
        for _ in objectives
    ]
    for part in batch.blocks(samples, plan.estimator):
        sides = Wanted(part.a < 2 and wanted[part.a], part.b < 2 and wanted[part.b], any(wanted[2:]))
        weights = [getattr(objective.weights, part.group) / part.pairs for objective in objectives]
        used = [i for i, weight in enumerate(weights) if weight and (part.value_weight or any(sides))]
        limits = [tuple(s.profile.limits(part.group, objectives[i].bounds) for s in plan.trained.radial) for i in used]
        sums = sums_with_gradients(plan.trained, part.block, limits, wanted=sides, side=side)
        for i, found in zip(used, sums, strict=True):
            values[i].add_(found.total, alpha=weights[i] * part.value_weight)
            weight = weights[i] * batch.gradient_factor
            added = [
                (gradients[i][part.a] if sides.a else None, found.to_a, part.gradient_weight),
                (gradients[i][part.b] if sides.b else None, found.to_b, part.gradient_weight),
                *[
                    (target, step, part.parameter_weight)
                    for target, step in zip(gradients[i][2:], found.to_tensors or (), strict=False)
                ],
            ]
            for target, step, own in added:
                if target is not None and step is not None:
                    target.add_(step, alpha=weight * own)
    for each in gradients:
        each[2:] = [None if g is None else g.to(x.dtype) for g, x in zip(each[2:], tensors, strict=True)]
    return list(batch.totals(values)), gradients


def _hessian_products(
    plan: Plan,
    inputs: Sequence[Tensor],
    wanted: Sequence[bool],
    outer: Sequence[Tensor],
    along: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """Return the derivatives of `<gradient, along>` with respect to the scores and the tensors of the kernels."""
    real, fake = inputs[:2]
    samples = plan.batch.samples(real, fake)
    blocks = plan.batch.blocks(samples, plan.estimator)
    products = [
        torch.zeros_like(tensor, dtype=tensor.dtype if i < 2 else total_dtype(real.device)) if want else None
        for i, (tensor, want) in enumerate(zip(inputs, wanted, strict=True))
    ]
    for objective, factor in zip(plan.objectives, outer, strict=True):
        directions = [None if direction is None else (factor * direction).to(direction.dtype) for direction in along]
        side = plan.trained.side(plan.tile_size, real.device)
        add_hessian_product(products, plan.trained, objective, blocks, samples, directions, side)
    return [product if product is None else product.to(x.dtype) for product, x in zip(products, inputs, strict=True)]


def _weighted_sum(factors: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    total = factors[0] * gradients[0]
    for factor, gradient in zip(factors[1:], gradients[1:], strict=True):
        total = total + factor * gradient
    return total.to(gradients[0].dtype)
