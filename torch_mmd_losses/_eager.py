"""Where gradients made by hand may be used: in eager mode, under nothing but plain reverse-mode autograd."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def plain_autograd(*tensors: Tensor) -> bool:
    """Whether nothing but plain reverse-mode autograd will look at what is computed from these tensors."""
    return (
        not torch.compiler.is_compiling()
        and all(type(tensor) in (Tensor, nn.Parameter) for tensor in tensors)
        and torch._C._functorch.peek_interpreter_stack() is None
        and torch.autograd.forward_ad._current_level < 0
    )
