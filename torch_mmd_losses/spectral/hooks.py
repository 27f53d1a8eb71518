"""Hooks that update the spectral norms of a module in its forward passes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from torch_mmd_losses.spectral.layers import spatial_dims
from torch_mmd_losses.spectral.parametrization import SpectralNorm


class IterationHook:
    """Forward pre-hook that advances the iteration of a layer.

    A hook runs once in each forward pass, however often the weight is read during it.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Tell the normalisation of a layer that a forward pass begins."""
        norm = spectral_norm_of(layer, self.name)
        if norm is None:
            self.remove(layer, self.name)
            return
        if not args and "input" not in kwargs:
            return  # the layer itself raises the error for a missing input
        x = args[0] if args else kwargs["input"]
        padding = None
        if not norm.has_input_size:
            if not isinstance(x, Tensor):
                raise TypeError(f"input: expected a tensor, got {type(x).__name__}")
            padding = _output_padding(layer, x, args[1] if len(args) > 1 else kwargs.get("output_size"))
        norm.before_forward(trained_weight(layer, self.name), x, layer.training, padding)

    @classmethod
    def remove(cls, layer: nn.Module, name: str) -> None:
        """Remove the hook of a parameter whose normalisation has been removed."""
        for key, hook in list(layer._forward_pre_hooks.items()):
            if isinstance(hook, cls) and hook.name == name:
                del layer._forward_pre_hooks[key]
                del layer._forward_pre_hooks_with_kwargs[key]


class FirstForwardHook:
    """Forward hook of a network that undoes the choice of input sizes if the first forward pass fails.

    The sizes are chosen before the layers run. If a forward pass of the network fails somewhere, for example because
    the image is of another size than a later layer expects, the sizes of this pass must not stay. The hook removes
    itself after the first pass in which every layer has got its size.
    """

    def __init__(self) -> None:
        self.unknown: set[str] = set()

    def before(self, module: nn.Module, _args: object) -> None:
        """Note the layers whose input sizes are not known before a forward pass."""
        if torch.compiler.is_compiling():
            return
        self.unknown = {label for label, _, norm in named_spectral_norms(module) if not norm.has_input_size}

    def after(self, module: nn.Module, _args: object, output: object) -> None:
        """Undo the choice of this pass if it failed, or remove the hook if all sizes are known."""
        if torch.compiler.is_compiling():
            return
        failed = output is None and sys.exc_info()[0] is not None
        unknown = False
        for label, _, norm in named_spectral_norms(module):
            if failed and label in self.unknown:
                norm.forget_input_size()
            unknown = unknown or not norm.has_input_size
        if not unknown:
            self.remove(module)

    @classmethod
    def register(cls, module: nn.Module) -> None:
        """Watch the forward passes of a module until all input sizes are known."""
        cls.remove(module)
        if all(norm.has_input_size for _, _, norm in named_spectral_norms(module)):
            return
        hook = cls()
        module.register_forward_pre_hook(hook.before, prepend=True)
        module.register_forward_hook(hook.after, always_call=True)

    @classmethod
    def remove(cls, module: nn.Module) -> None:
        """Remove the hook from a module."""
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key, hook in list(hooks.items()):
                if isinstance(getattr(hook, "__self__", None), cls):
                    del hooks[key]
                    module._forward_hooks_always_called.pop(key, None)


def named_spectral_norms(module: nn.Module) -> Iterator[tuple[str, Tensor, SpectralNorm]]:
    """Yield the label, the trained weight and the normalisation of every parameter that is normalised in a module.

    The label is the name of the layer, followed by the name of the parameter unless it is `weight`.
    """
    for label, layer in module.named_modules():
        for name in getattr(layer, "parametrizations", {}):
            norm = spectral_norm_of(layer, name)
            if norm is not None:
                full_label = label if name == "weight" else f"{label}.{name}".lstrip(".")
                yield full_label, trained_weight(layer, name), norm


def trained_weight(layer: nn.Module, name: str) -> Tensor:
    """Return the weight that the normalised weight of a layer is computed from."""
    return layer.parametrizations[name].original  # type: ignore[index, union-attr]


def spectral_norm_of(layer: nn.Module, name: str) -> SpectralNorm | None:
    """Return the normalisation of a parameter, or None if the parameter is not normalised."""
    if not parametrize.is_parametrized(layer, name):
        return None
    first = layer.parametrizations[name][0]  # type: ignore[index]
    return first if isinstance(first, SpectralNorm) else None


def _output_padding(layer: nn.Module, x: Tensor, output_size: list[int] | None) -> list[int] | None:
    """Return the output padding that a transposed convolution uses for a wanted output size."""
    if output_size is None or not getattr(layer, "transposed", False):
        return None
    return layer._output_padding(  # type: ignore[operator]
        x, output_size, layer.stride, layer.padding, layer.kernel_size, spatial_dims(layer), layer.dilation
    )
