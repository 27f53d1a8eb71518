"""The normalised weight with its gradient by hand, for eager mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.autograd import apart


class SigmaGradient(NamedTuple):
    """The gradient of sigma with respect to the weight, and the vector that it belongs to.

    It depends on vectors only, not on the weight: sigma and its gradient at any weight follow from it, so keeping it
    can make an estimate less sharp, but never wrong.
    """

    gradient: Tensor
    v: Tensor


def normalise(weight: Tensor, scale: Tensor | float, sigma: Tensor, eps: float) -> Tensor:
    """Return `scale * weight / sigma`."""
    # A zero weight stays zero, and learns: a tiny sigma instead of one would make its gradient as large as 1 / eps.
    return weight * (scale / torch.where(sigma > eps, sigma, 1))


def normalise_by_gradient(
    weight: Tensor,
    scale: Tensor | float,
    sigma_gradient: SigmaGradient,
    eps: float,
    norm_along_v: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Return `scale * weight / |<gradient, weight>|`, where `autograd.plain_autograd` holds of the weight.

    `norm_along_v(weight, v)` is the same number as `|<gradient, weight>|`, differentiable twice.
    """
    return _NormaliseByGradient.apply(weight, scale, sigma_gradient.gradient, sigma_gradient.v, eps, norm_along_v)  # type: ignore[no-untyped-call]


class _NormaliseByGradient(torch.autograd.Function):
    """Autograd would make a tensor as large as the weight for every factor and every term; this makes one each way."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        weight: Tensor,
        scale: Tensor | float,
        gradient: Tensor,
        v: Tensor,
        eps: float,
        norm_along_v: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        signed_sigma = _dot(gradient, weight)
        usable = signed_sigma.abs() > eps
        signed_inverse = torch.where(usable, 1 / signed_sigma, 0)  # the derivative of log sigma along the gradient
        inverse = torch.where(usable, signed_inverse.abs(), 1)
        learned = isinstance(scale, Tensor)
        ctx.save_for_backward(weight, gradient, v, inverse, signed_inverse, *([scale] if learned else []))
        ctx.scale = None if learned else scale
        ctx.eps, ctx.norm_along_v = eps, norm_along_v
        return weight * (scale * inverse)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        weight, gradient, v, inverse, signed_inverse, *learned = ctx.saved_tensors
        grad_weight = grad_scale = None
        with checks.full_precision(weight.device):
            if torch.is_grad_enabled():
                # Here sigma has to be a function of the weight: the gradient turns as the weight moves.
                weight, *learned = apart(weight, *learned)
                wanted = [x for x in (weight, *learned) if x.requires_grad]
                value = normalise(weight, learned[0] if learned else ctx.scale, ctx.norm_along_v(weight, v), ctx.eps)
                gradients = iter(torch.autograd.grad(value, wanted, grad_output, create_graph=True))
                grad_weight = next(gradients) if weight.requires_grad else None
                grad_scale = next(gradients, None)
            else:
                scale = learned[0] if learned else ctx.scale
                output_dot_weight = _dot(grad_output, weight)
                if ctx.needs_input_grad[0]:
                    factor = scale * inverse
                    grad_weight = (grad_output * factor).addcmul_(
                        gradient, -factor * signed_inverse * output_dot_weight
                    )
                if ctx.needs_input_grad[1]:
                    grad_scale = output_dot_weight * inverse
        return grad_weight, grad_scale, None, None, None, None


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return torch.dot(x.reshape(-1), y.reshape(-1))
