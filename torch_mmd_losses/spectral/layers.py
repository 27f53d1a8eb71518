"""The layers of a module that can be wrapped, and checks of these layers and their input size."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize

from torch_mmd_losses import checks
from torch_mmd_losses.spectral.operators import ConvolutionOperator
from torch_mmd_losses.spectral.sharding import is_sharded
from torch_mmd_losses.types import Method

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYERS = (nn.Linear, *CONVOLUTIONS)


def layers_to_wrap(module: nn.Module) -> dict[str, nn.Module]:
    """Return the layers to wrap by name. A layer that is used in several places is returned once."""
    if isinstance(module, LAYERS):
        return {type(module).__name__: module}
    layers: dict[str, nn.Module] = {
        label: layer for label, layer in module.named_modules() if isinstance(layer, LAYERS)
    }
    if not layers:
        kinds = ", ".join(kind.__name__ for kind in LAYERS)
        raise ValueError(
            f"module: expected a layer of type {kinds}, or a module that contains one, got {type(module).__name__}"
            f"{_own_layers(module)}"
        )
    return layers


def _own_layers(module: nn.Module) -> str:
    """Return the types of the modules that hold weights, as the end of an error message."""
    holders = {type(part).__name__ for part in module.modules() if any(w.dim() > 1 for w in _own_weights(part))}
    if not holders:
        return ""
    return f", whose weights are in modules of type {', '.join(sorted(holders))}; use the layers of torch.nn instead"


def _own_weights(part: nn.Module) -> list[nn.Parameter]:
    return [weight for weight in part.parameters(recurse=False) if not isinstance(weight, UninitializedParameter)]


def check_layer(label: str, layer: nn.Module, name: str) -> None:
    """Raise a ValueError unless the parameter `name` of the layer can be normalised."""
    if parametrize.is_parametrized(layer, name):
        raise ValueError(
            f"module: expected layers whose {name!r} is not parametrized yet, got {label!r}, whose {name!r} is; "
            "replace=True removes PyTorch's own spectral norms only; remove others, such as weight_norm, by "
            "torch.nn.utils.parametrize.remove_parametrizations"
        )
    if isinstance(layer, nn.modules.linear.NonDynamicallyQuantizableLinear):
        raise ValueError(
            f"module: expected layers that are called in a forward pass, got {label!r} of a "
            "torch.nn.MultiheadAttention, which only reads the weight of this layer, so that the spectral norm could "
            "not be updated; wrap the other layers one by one"
        )
    weight, own = getattr(layer, name, None), layer.weight
    if isinstance(weight, UninitializedParameter):
        raise ValueError(
            f"module: expected layers with initialised weights, got {label!r}, whose weight has no shape yet; run a "
            "forward pass through lazy layers before wrapping them"
        )
    if isinstance(weight, Tensor) and not isinstance(weight, nn.Parameter):
        raise ValueError(
            f"name: expected a parameter of layer {label!r}, got {name!r}, which is computed by a hook, such as "
            "torch.nn.utils.spectral_norm, weight_norm or pruning; remove the hook first, as by remove_weight_norm "
            "(replace=True removes PyTorch's own spectral norms only)"
        )
    if is_sharded(weight):
        raise ValueError(
            f"module: expected layers with plain weights, got {label!r}, whose {name!r} is a DTensor; call "
            "conv_spectral_norm before fully_shard, parallelize_module or distribute_module"
        )
    if not isinstance(weight, Tensor) or not weight.is_floating_point() or weight.shape != own.shape:
        raise ValueError(
            f"name: expected a floating-point parameter of layer {label!r} shaped like its weight, got {name!r}, "
            f"{_kind(weight)}"
        )
    if weight.layout is not torch.strided or weight.dtype.itemsize == 1:
        raise ValueError(
            f"module: expected layers with dense weights of at least 16 bits, got {label!r}, whose {name!r} is "
            f"{weight.dtype} with the layout {weight.layout}"
        )
    if not weight.numel():
        raise ValueError(
            f"module: expected layers with at least one weight, got {label!r}, whose {name!r} has the shape "
            f"{tuple(weight.shape)}"
        )


def check_scale(label: str, weight: Tensor, scale: float) -> None:
    """Raise a ValueError if the scale cannot be held in the dtype of the weight."""
    limits = torch.finfo(weight.dtype)
    if not limits.tiny <= scale <= limits.max:
        raise ValueError(
            f"scale: expected a number that {weight.dtype} can hold, the dtype of layer {label!r}, got {scale!r}"
        )


def check_input_size(
    input_size: int | Sequence[int] | None, layers: dict[str, nn.Module], method: Method, name: str
) -> tuple[int, ...] | None:
    """Return the input size of a single convolution as one number for each spatial dimension; None stays None."""
    if input_size is None:
        return None
    dims = [spatial_dims(layer) for layer in layers.values()]
    if len(dims) != 1 or dims == [0] or method == "matrix":
        raise ValueError(
            "input_size: expected None unless module is a single convolution and method is not 'matrix', got "
            f"{checks.described(input_size)} for {len(dims)} layer(s) with method={method!r}"
        )
    several = isinstance(input_size, Sequence) and not isinstance(input_size, (str, bytes, bytearray))
    lengths: Sequence[Any] = input_size if several else (input_size,) * dims[0]  # type: ignore[assignment]
    if len(lengths) != dims[0] or not all(map(_is_length, lengths)):
        raise ValueError(
            f"input_size: expected {dims[0]} integer(s) >= 1, without channels, got {checks.described(input_size)}"
        )
    size = tuple(map(int, lengths))
    for layer in layers.values():
        _check_size_fits(layer, size, name)
    return size


def _is_length(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and 1 <= int(value) < 2**63


def _kind(value: object) -> str:
    """Return a description of an attribute of a layer, for an error message."""
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return "which does not exist or is None" if value is None else f"of type {type(value).__name__}"


def _check_size_fits(layer: nn.Module, size: tuple[int, ...], name: str) -> None:
    convolution = ConvolutionOperator.from_layer(layer)  # type: ignore[arg-type]
    weight = getattr(layer, name).detach()
    try:
        convolution.apply(weight.new_zeros(convolution.vector_shape(size)), weight)
    except RuntimeError as error:
        raise ValueError(f"input_size: expected a size that the layer accepts, got {size}: {error}") from error


def spatial_dims(layer: nn.Module) -> int:
    """Return the number of spatial dimensions of a convolution, or 0 for another layer."""
    return len(layer.kernel_size) if isinstance(layer, CONVOLUTIONS) else 0
