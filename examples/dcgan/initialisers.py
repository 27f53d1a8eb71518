"""Initial weights as in the authors' code, where the activation after a layer decides."""

from __future__ import annotations

import math
from typing import Literal, TypeVar

from torch import Tensor, nn

SLOPE = 0.1
"""Slope of every LeakyReLU below zero. The paper gives none; this is the authors'."""

BIAS_STD = 1e-5

Activation = Literal["relu", "leaky_relu", "linear", "tanh"]
Layer = TypeVar("Layer", nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def initialised(layer: Layer, activation: Activation) -> Layer:
    """Draw the weight, and the bias if there is one, of a layer that `activation` follows; return the layer.

    Before (leaky) rectifiers the weight is a normal of variance 2 / ((1 + slope²) fan-in), cut at two standard
    deviations; before the others it is Glorot's uniform.
    """
    if activation in ("relu", "leaky_relu"):
        gain = 2 / (1 + SLOPE**2) if activation == "leaky_relu" else 2.0
        # TensorFlow versions differ in whether the variance is that before the cut or after it (0.77 times as much).
        # It is of no consequence: all these layers are followed by a normalisation or are normalised themselves.
        _truncated_normal(layer.weight, math.sqrt(gain / _fan_in(layer.weight)))
    else:
        nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        _truncated_normal(layer.bias, BIAS_STD)
    return layer


def _fan_in(weight: Tensor) -> int:
    # A transposed convolution has its inputs first. The authors count the outputs there, as PyTorch does.
    return weight[0].numel()


def _truncated_normal(values: Tensor, std: float) -> None:
    nn.init.trunc_normal_(values, std=std, a=-2 * std, b=2 * std)
