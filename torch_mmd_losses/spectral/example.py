"""One forward pass that fixes the input sizes of all layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from torch_mmd_losses import checks, usage_warnings
from torch_mmd_losses.spectral.hooks import named_spectral_norms


def check_example(example_input: object, input_size: object) -> tuple[Any, ...] | None:
    """Return the arguments of the example as a tuple; None stays None."""
    if example_input is None:
        return None
    if not isinstance(example_input, (Tensor, tuple)):
        raise TypeError(
            f"example_input: expected a tensor or a tuple of arguments, got {checks.described(example_input)} of type "
            f"{type(example_input).__name__}"
        )
    if input_size is not None:
        raise ValueError(f"example_input: expected None if input_size is given, got both (input_size={input_size!r})")
    return example_input if isinstance(example_input, tuple) else (example_input,)


def run_example(module: nn.Module, arguments: tuple[Any, ...], *, strict: bool) -> None:
    """Run a module in eval mode without gradients, and warn of layers that this forward pass has not reached."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        with torch.no_grad():
            module(*arguments)
    finally:
        for part, training in modes:
            part.training = training
    unseen = [label for label, _, norm in named_spectral_norms(module) if not norm.has_input_size]
    if unseen:
        message = (
            f"example_input: expected an input that reaches all layers, got one that does not reach "
            f"{', '.join(map(repr, unseen))}; their input sizes are taken from their first forward pass"
        )
        if strict:
            raise ValueError(message)
        usage_warnings.warn("example input", message)
