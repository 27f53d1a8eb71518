"""The DCGAN of Tables S1 (32 and 48 pixels) and S2 (64 pixels) of Wang et al. (2019).

`docs/wang2019.md` lists the details that the tables leave open, and the mistake in Table S2.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from torch_mmd_losses import conv_spectral_norm

Activation = Literal["relu", "leaky_relu", "linear", "tanh"]
Layer = TypeVar("Layer", nn.Linear, nn.Conv2d, nn.ConvTranspose2d)

NOISE = 128  # dimension of the noise, which is standard normal
SCALINGS = {32: 3, 48: 3, 64: 4}  # number of layers that halve or double the size, by the size of the images
SLOPE = 0.1  # negative slope of every LeakyReLU
BIAS_STD = 1e-5
# TensorFlow's defaults for batch normalisation; its momentum of 0.99 is 0.01 in PyTorch.
EPS, MOMENTUM = 1e-3, 0.01


def make_generator(size: int, *, noise: int = NOISE, channels: int = 3, width: int = 64) -> nn.Sequential:
    """Return a network that maps noise `(n, noise)` to images `(n, channels, size, size)` in [-1, 1].

    `width` is the number of channels of the largest feature maps; the channels of all other layers are proportional.
    """
    side, widest = _coarsest(size, width)
    dense = initialised(nn.Linear(noise, widest * side * side), "linear")
    layers: list[nn.Module] = [dense, nn.Unflatten(1, (widest, side, side))]
    for halvings in range(1, SCALINGS[size] + 1):
        wide, narrow = widest >> halvings - 1, widest >> halvings
        # Batch normalisation subtracts the mean, so a bias before it would have no effect.
        doubling = nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1, bias=False)
        layers += [initialised(doubling, "relu"), nn.BatchNorm2d(narrow, EPS, MOMENTUM), nn.ReLU()]
    return nn.Sequential(*layers, initialised(nn.Conv2d(width, channels, 3, padding=1), "tanh"), nn.Tanh())


def make_discriminator(
    size: int, *, scores: int, channels: int = 3, width: int = 64, method: str = "pico", scale: float = 1 / 0.55
) -> nn.Sequential:
    """Return a network that maps images `(n, channels, size, size)` to scores `(n, scores)`.

    A `method` of `conv_spectral_norm` gives all layers, including the dense one, the norm `scale`; `"none"` does not.
    """
    side, widest = _coarsest(size, width)
    layers: list[nn.Module] = [*_convolution(channels, width, 3, stride=1)]
    for doublings in range(SCALINGS[size]):
        narrow, wide = width << doublings, width << doublings + 1
        layers += [*_convolution(narrow, wide, 4, stride=2), *_convolution(wide, wide, 3, stride=1)]
    layers += [nn.Flatten(), initialised(nn.Linear(widest * side * side, scores), "linear")]
    network = nn.Sequential(*layers)
    if method != "none":
        # The norm of a convolution depends on the size of its input.
        shown: dict[str, Any] = {"method": method, "example_input": torch.zeros(1, channels, size, size)}
        conv_spectral_norm(network, scale=scale, **shown)
    return network


def normalised_layers(size: int) -> int:
    """Return the number of layers of the discriminator, K in C^K: 8 for 32 and 48 pixels, 10 for 64."""
    return 2 * SCALINGS[size] + 2


def _coarsest(size: int, width: int) -> tuple[int, int]:
    """Return the side and the channels of the smallest feature maps."""
    if size not in SCALINGS:
        raise ValueError(f"size: expected {', '.join(map(str, SCALINGS))}, got {size}")
    return size >> SCALINGS[size], width << SCALINGS[size]


def _convolution(channels_in: int, channels_out: int, kernel: int, *, stride: int) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(channels_in, channels_out, kernel, stride=stride, padding=1)
    return initialised(convolution, "leaky_relu"), nn.LeakyReLU(SLOPE)


def initialised(layer: Layer, activation: Activation) -> Layer:
    """Draw the weight and the bias, if any, of a layer that is followed by `activation`; return the layer.

    Before (leaky) ReLU, the weight is normal with variance 2 / ((1 + slope²) fan-in), truncated at two standard
    deviations. Before the other activations, it is Glorot-uniform.
    """
    if activation in ("relu", "leaky_relu"):
        gain = 2 / (1 + SLOPE**2) if activation == "leaky_relu" else 2.0
        # Versions of TensorFlow differ in whether this is the variance before the truncation or after it (0.77 of it).
        # This does not matter, since all these layers are normalised or followed by a normalisation. The weight of a
        # transposed convolution has the inputs first, so fan-in counts the outputs there, as in the authors' code.
        _truncated_normal(layer.weight, math.sqrt(gain / layer.weight[0].numel()))
    else:
        nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        _truncated_normal(layer.bias, BIAS_STD)
    return layer


def _truncated_normal(values: Tensor, std: float) -> None:
    nn.init.trunc_normal_(values, std=std, a=-2 * std, b=2 * std)
