"""Values of independent batches with their gradients made in the forward pass, piece by piece, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.autograd import apart

Ahead = Callable[[Tensor, Tensor, bool], tuple[Tensor, ...]]
"""Returns values `(b,)` and, if asked for, the gradients of their sum: `(b, m, d)` and `(b, n, d)`."""

ByAutograd = Callable[[Tensor, Tensor], Tensor]
"""Returns the same values, differentiable as often as one likes."""


def values(real: Tensor, fake: Tensor, ahead: Ahead, by_autograd: ByAutograd) -> Tensor:
    """Return values `(b,)`, each a function of its own batch `(m, d)` of `real` and `(n, d)` of `fake`."""
    return _Ahead.apply(real, fake, ahead, by_autograd)  # type: ignore[no-untyped-call]


class _Ahead(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, real: Tensor, fake: Tensor, ahead: Ahead, by_autograd: ByAutograd) -> Tensor:  # noqa: ANN401
        ctx.by_autograd = by_autograd
        found, *gradients = ahead(real, fake, any(ctx.needs_input_grad))
        ctx.save_for_backward(real, fake, *gradients)
        return found

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        real, fake, *gradients = ctx.saved_tensors
        needed = ctx.needs_input_grad[:2]
        if not torch.is_grad_enabled():
            factor = outer.view(-1, 1, 1)
            pulls = (factor.to(gradient.dtype) * gradient for gradient in gradients)
            return *(pull if wanted else None for pull, wanted in zip(pulls, needed, strict=True)), None, None
        # The gradient will be differentiated: it has to be a function of the scores.
        with checks.full_precision(real.device):
            sets = apart(real, fake)
            inputs = [scores for scores, wanted in zip(sets, needed, strict=True) if wanted]
            found = iter(torch.autograd.grad(ctx.by_autograd(*sets), inputs, outer, create_graph=True))
        return *(next(found) if wanted else None for wanted in needed), None, None
