"""The normalised weight with its gradient by hand, for eager mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.autograd import apart


class Slope(NamedTuple):
    """The gradient of sigma with respect to the weight, and the vector that it belongs to.

    It depends on vectors only, not on the weight: sigma and its gradient at any weight follow from it, so keeping it
    can make an estimate less sharp, but never wrong.
    """

    of_sigma: Tensor
    v: Tensor


def divided(weight: Tensor, scale: Tensor | float, sigma: Tensor, eps: float) -> Tensor:
    """Return `scale * weight / sigma`."""
    # A zero weight stays zero, and learns: a tiny sigma instead of one would make its gradient as large as 1 / eps.
    return weight * (scale / torch.where(sigma > eps, sigma, 1))


def divided_along(
    weight: Tensor, scale: Tensor | float, slope: Slope, eps: float, sigma: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Return `scale * weight / |<slope, weight>|`, where `autograd.plain_autograd` holds of the weight.

    `sigma(weight, v)` is the same number as `|<slope, weight>|`, differentiable twice.
    """
    return _DividedAlong.apply(weight, scale, slope.of_sigma, slope.v, eps, sigma)  # type: ignore[no-untyped-call]


class _DividedAlong(torch.autograd.Function):
    """Autograd would make a tensor as large as the weight for every factor and every term; this makes one each way."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        weight: Tensor,
        scale: Tensor | float,
        slope: Tensor,
        v: Tensor,
        eps: float,
        sigma: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        along = _dot(slope, weight)
        usable = along.abs() > eps
        pull = torch.where(usable, 1 / along, 0)  # the derivative of log sigma along the slope
        inverse = torch.where(usable, pull.abs(), 1)
        learned = isinstance(scale, Tensor)
        ctx.save_for_backward(weight, slope, v, inverse, pull, *([scale] if learned else []))
        ctx.scale = None if learned else scale
        ctx.eps, ctx.sigma = eps, sigma
        return weight * (scale * inverse)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        weight, slope, v, inverse, pull, *learned = ctx.saved_tensors
        to_weight = to_scale = None
        with checks.full_precision(weight.device):
            if torch.is_grad_enabled():
                # Here sigma has to be a function of the weight: the slope turns as the weight moves.
                weight, *learned = apart(weight, *learned)
                wanted = [x for x in (weight, *learned) if x.requires_grad]
                value = divided(weight, learned[0] if learned else ctx.scale, ctx.sigma(weight, v), ctx.eps)
                found = iter(torch.autograd.grad(value, wanted, outer, create_graph=True))
                to_weight = next(found) if weight.requires_grad else None
                to_scale = next(found, None)
            else:
                scale = learned[0] if learned else ctx.scale
                share = _dot(outer, weight)
                if ctx.needs_input_grad[0]:
                    factor = scale * inverse
                    to_weight = (outer * factor).addcmul_(slope, -factor * pull * share)
                if ctx.needs_input_grad[1]:
                    to_scale = share * inverse
        return to_weight, to_scale, None, None, None, None


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return torch.dot(x.reshape(-1), y.reshape(-1))
