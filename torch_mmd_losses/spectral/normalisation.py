"""Divide a weight by its spectral norm, by autograd or with a hand-written gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses.hand_written_gradients import differentiable_gradients
from torch_mmd_losses.precision import full_precision


class SigmaGradient(NamedTuple):
    """The gradient of sigma = `<u, A v>` with respect to the weight, and the vector `v`.

    The gradient depends on the vectors `u` and `v` but not on the weight. It gives a lower bound of sigma, and the
    gradient of this bound, for any weight. If the vectors are those of an older weight, the bound is less tight but
    still valid.
    """

    gradient: Tensor
    v: Tensor


def normalise(weight: Tensor, scale: Tensor | float, sigma: Tensor, eps: float) -> Tensor:
    """Return `scale * weight / sigma`, or `scale * weight` if sigma <= eps."""
    # A zero weight stays zero and can learn. Divided by eps instead of one, its gradient would be as large as 1 / eps.
    divisor = torch.where(sigma > eps, sigma, 1)
    # The second factor is one. Its derivative is that of 1 / divisor, in which no square of sigma leaves the range.
    constant = divisor.detach()
    return weight * (scale / constant * (constant / divisor))


def normalise_by_gradient(
    weight: Tensor,
    scale: Tensor | float,
    sigma_gradient: SigmaGradient,
    eps: float,
    norm_along_v: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Return `scale * weight / sigma` with sigma = `|<gradient, weight>|` and a hand-written backward pass.

    Only for a weight for which :func:`reverse_mode_only` is true. The function `norm_along_v(weight, v)` returns the
    same sigma and can be differentiated twice. It is used for second derivatives.
    """
    return _NormaliseByGradient.apply(weight, scale, sigma_gradient.gradient, sigma_gradient.v, eps, norm_along_v)  # type: ignore[no-untyped-call]


class _NormaliseByGradient(torch.autograd.Function):
    """Normalise with one allocation as large as the weight in the forward pass and one in the backward pass.

    Autograd would allocate such a tensor for every factor and every term.
    """

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
        signed_sigma = dot(gradient, weight)
        usable = signed_sigma.abs() > eps
        signed_inverse = torch.where(usable, 1 / signed_sigma, 0)  # derivative of log(sigma) is this times the gradient
        inverse = torch.where(usable, signed_inverse.abs(), 1)
        learned = isinstance(scale, Tensor)
        ctx.save_for_backward(weight, gradient, v, inverse, signed_inverse, *([scale] if learned else []))
        ctx.scale = None if learned else scale
        ctx.eps, ctx.norm_along_v = eps, norm_along_v
        return weight * (scale * inverse)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        weight, gradient, v, inverse, signed_inverse, *learned = ctx.saved_tensors
        scale = learned[0] if learned else ctx.scale
        if torch.is_grad_enabled():
            # For second derivatives, sigma has to be a function of the weight, with a gradient that varies with it.

            def again(weight: Tensor, scale: Tensor | float = scale) -> tuple[Tensor]:
                return (normalise(weight, scale, ctx.norm_along_v(weight, v), ctx.eps),)

            grad_weight, *grad_scales = differentiable_gradients(again, (weight, *learned), (grad_output,))
            return grad_weight, grad_scales[0] if learned else None, None, None, None, None
        grad_weight = grad_scale = None
        with full_precision(weight.device):
            output_dot_weight = dot(grad_output, weight)
            if ctx.needs_input_grad[0]:
                grad_weight = gradient_by_weight(
                    grad_output, gradient, scale * inverse, signed_inverse * output_dot_weight
                )
            if ctx.needs_input_grad[1]:
                grad_scale = output_dot_weight * inverse
        return grad_weight, grad_scale, None, None, None, None


def gradient_by_weight(grad_output: Tensor, sigma_gradient: Tensor, factor: Tensor, along: Tensor) -> Tensor:
    """Return the gradient of `factor * weight`, where `factor` is inversely proportional to sigma.

    Args:
        grad_output: the incoming gradient.
        sigma_gradient: the gradient of sigma with respect to the weight.
        factor: `scale / sigma`.
        along: `<grad_output, weight> / sigma`.
    """
    # In this order no factor leaves the range of float32, which the square of a tiny or huge sigma would.
    return (grad_output * factor).addcmul_(sigma_gradient, factor * -along)


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Return the inner product of two tensors of the same shape."""
    return torch.dot(x.reshape(-1), y.reshape(-1))
