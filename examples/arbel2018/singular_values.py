"""The singular values of a critic's layers during a training; `figures/fig2b_singular_values.py` draws them.

The weights in use are reshaped to matrices with one row for each output channel, as in the spectral parametrisation of
the paper. If a critic collapses to few directions, its singular values fall quickly with their rank.
"""

from __future__ import annotations

import torch
from torch import nn

SPECTRA = "singular_values"  # name of the log of singular values, and of their entry in its lines


@torch.no_grad()
def singular_values(critic: nn.Module) -> dict[str, list[float]]:
    """Return the singular values of each layer's weight matrix by the name of the layer, the largest first.

    A weight `(outputs, inputs, height, width)` is reshaped to `(outputs, inputs * height * width)`. The critic does not
    change, since reading a normalised weight does not advance its power iteration.
    """
    found = {}
    for name, layer in critic.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            # The transpose has the same values. For a large matrix, it takes a tenth of the time.
            values = torch.linalg.svdvals(layer.weight.flatten(1).T)
            found[name] = [float(f"{value:.6g}") for value in values.tolist()]  # float32 has seven digits
    return found
