"""What gradients made by hand need: where they may be used, and how autograd takes over from them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch._C._functorch import peek_interpreter_stack
from torch.autograd import forward_ad


def plain_autograd(*tensors: Tensor) -> bool:
    """Whether nothing but plain reverse-mode autograd will look at what is computed from these tensors."""
    return (
        not torch.compiler.is_compiling()
        and all([type(tensor) is Tensor or type(tensor) is nn.Parameter for tensor in tensors])  # noqa: C419 (faster)
        and peek_interpreter_stack() is None
        and forward_ad._current_level < 0
    )


def apart(*tensors: Tensor) -> list[Tensor]:
    """Return views of the inputs of a backward pass that differentiates a function of them anew.

    The derivatives by these are partial ones also where one input was computed from another, or is the same: autograd
    follows the rest of the way itself. And hooks of an input wait for what autograd has made of all of it.
    """
    return [tensor.view_as(tensor) for tensor in tensors]
