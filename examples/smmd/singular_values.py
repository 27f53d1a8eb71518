"""The singular values of a critic's layers (Fig. 2b and 7): what to log of them.

They are those of the weights in use, reshaped to matrices with a row for each output channel, as the spectral
parametrisation of the paper sees them. A critic that collapses to few directions shows in values that fall fast.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torch_mmd_losses import conv_spectral_norm, spectral_norms

DIGITS = 6
"""Significant digits of logged numbers; float32 has seven."""

_CONVOLUTION = ["in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"]
_DENSE = ["in_features", "out_features"]

Spectra = dict[str, list[float]]


@torch.no_grad()
def singular_values(critic: nn.Module) -> Spectra:
    """Return all singular values of each layer's weight matrix, by the name of the layer, the largest first.

    A weight `(outputs, inputs, height, width)` counts as a matrix `(outputs, inputs * height * width)`. Nothing of the
    critic changes: reading a normalised weight does not advance its power iteration.

    Args:
        critic: a network of `Linear` and `Conv2d` layers, normalised or not.
    """
    # Those of the transpose are the same; a large matrix with more rows than columns takes a tenth of the time.
    return {name: _rounded(torch.linalg.svdvals(weight.flatten(1).T)) for name, weight in _weights(critic).items()}


def summary(values: Sequence[float]) -> dict[str, float | None]:
    """Return a few numbers for the singular values of one layer.

    Args:
        values: all singular values, the largest first.

    Returns:
        The largest, the median and the smallest value; the condition number, largest by smallest, or None for a matrix
        without full rank; and the stable rank, the sum of the squares by the largest square, or None for zero.
    """
    largest, smallest = values[0], values[-1]
    return {
        "largest": largest,
        "median": statistics.median(values),
        "smallest": smallest,
        "condition": largest / smallest if smallest else None,
        "stable_rank": math.fsum((value / largest) ** 2 for value in values) if largest else None,
    }


@torch.no_grad()
def convolution_norms(critic: nn.Module, images: Tensor) -> dict[str, float]:
    """Return the spectral norm of each layer as the linear map that it is, by the name of the layer.

    For a convolution that is the norm of all of it, which depends on the size of its input; for a dense layer it is
    the largest singular value. A padding layer before a convolution counts as its input.

    Args:
        critic: a network of `Linear` and `Conv2d` layers, normalised or not; it is left as it is.
        images: any images `(n, channels, size, size)` of the size that matters.
    """
    sizes = _input_sizes(critic, images)
    norms = {}
    for name, layer in _layers(critic).items():
        (norm,) = spectral_norms(_normalised(layer, sizes[name])).values()
        norms[name] = _round(norm.item())
    return norms


def _layers(critic: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    return {name: layer for name, layer in critic.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}


def _weights(critic: nn.Module) -> dict[str, Tensor]:
    return {name: layer.weight for name, layer in _layers(critic).items()}


def _normalised(layer: nn.Conv2d | nn.Linear, size: tuple[int, ...]) -> nn.Module:
    """Return a layer with this one's weight in use as its own, and a spectral norm for inputs of a size."""
    # A copy would not do: a normalised layer shares its class, which has the weight, with its copies.
    kind, names = (nn.Conv2d, _CONVOLUTION) if isinstance(layer, nn.Conv2d) else (nn.Linear, _DENSE)
    options: dict[str, Any] = {name: getattr(layer, name) for name in names}
    plain = kind(**options, bias=False, device="meta")
    plain.weight = nn.Parameter(layer.weight)
    return conv_spectral_norm(plain, input_size=size or None)


def _input_sizes(critic: nn.Module, images: Tensor) -> dict[str, tuple[int, ...]]:
    """Return the height and width of the input of each layer."""
    sizes: dict[str, tuple[int, ...]] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: sizes.update({name: tuple(inputs[0].shape[2:])}))
        for name, layer in _layers(critic).items()
    ]
    was_training = critic.training
    try:
        critic.eval()(images)  # in which no power iteration moves
    finally:
        critic.train(was_training)
        for hook in hooks:
            hook.remove()
    return sizes


def _rounded(values: Tensor) -> list[float]:
    return [_round(value) for value in values.tolist()]


def _round(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
