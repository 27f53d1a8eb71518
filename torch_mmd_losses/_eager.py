"""Where gradients made by hand may be used: in eager mode, under nothing but plain reverse-mode autograd."""

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
