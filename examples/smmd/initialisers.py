"""Initial weights as in the authors' code; biases start at zero.

The paper gives none. The code draws from a normal distribution in layers of the DCGAN kind and Glorot's uniform in
residual blocks.
"""

from __future__ import annotations

from typing import TypeVar

from torch import nn

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d, nn.ConvTranspose2d)

CONVOLUTION_STD = 0.02
"""Standard deviation in convolutions, transposed ones included, and in the dense layer of the SNGAN critic."""

LINEAR_STD = 0.01
"""Standard deviation in all other dense layers."""


def normal(layer: Layer, std: float) -> Layer:
    """Draw the weight of a layer from a normal distribution; return the layer."""
    nn.init.normal_(layer.weight, std=std)
    return _unbiased(layer)


def truncated_normal(layer: Layer, std: float) -> Layer:
    """Draw the weight of a layer from a normal distribution cut at two standard deviations; return the layer."""
    nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
    return _unbiased(layer)


def glorot(layer: Layer) -> Layer:
    """Draw the weight of a layer from Glorot's uniform distribution; return the layer."""
    nn.init.xavier_uniform_(layer.weight)
    return _unbiased(layer)


def _unbiased(layer: Layer) -> Layer:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
