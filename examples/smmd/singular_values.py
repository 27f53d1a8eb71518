"""The singular values of a critic's layers (Fig. 2b and 7): what to log of them.

They are those of the weights in use, reshaped to matrices with a row for each output channel, as the spectral
parametrisation of the paper sees them. A critic that collapses to few directions shows in values that fall fast.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor, nn

DIGITS = 6
"""Significant digits of logged numbers; float32 has seven."""

Spectra = dict[str, list[float]]


@torch.no_grad()
def singular_values(critic: nn.Module) -> Spectra:
    """Return all singular values of each layer's weight matrix, by the name of the layer, the largest first.

    A weight `(outputs, inputs, height, width)` counts as a matrix `(outputs, inputs * height * width)`. Nothing of the
    critic changes: reading a normalised weight does not advance its power iteration.

    Args:
        critic: a network of `Linear` and `Conv2d` layers, normalised or not.
    """
    layers = {name: layer for name, layer in critic.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    # Those of the transpose are the same; a large matrix with more rows than columns takes a tenth of the time.
    return {name: _rounded(torch.linalg.svdvals(layer.weight.flatten(1).T)) for name, layer in layers.items()}


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


def _rounded(values: Tensor) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values.tolist()]
