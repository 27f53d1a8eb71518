"""Forwards in half precision by autocast, and gradients that do not vanish in it."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""The precisions of forwards and backwards. Weights, optimisers, losses and norms are in float32 with all of them."""

SMALLEST_SCALE = 2.0**-14
"""The scale of a loss below which training has failed.

It is 2^16 at first and halved at every overflow, so that it takes 31 in a row from the start.
"""


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """Return the context of the forwards, which changes nothing for float32."""
    return torch.autocast(device.type, DTYPES[precision], enabled=precision != "float32")


class Learner:
    """The optimiser of a network with the scale of its loss, which differs from 1 for float16 only.

    Args:
        optimiser: of all parameters of the network.
        precision: one of `DTYPES`.
        device: where the network is.
    """

    def __init__(self, optimiser: torch.optim.Optimizer, precision: str, device: torch.device) -> None:
        self.optimiser = optimiser
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")
        self._parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]

    def differentiate(self, loss: Tensor, *, retain_graph: bool = False) -> None:
        """Put the gradient of a loss, still scaled, into the parameters, and into no other network's."""
        self.optimiser.zero_grad()
        self.scaler.scale(loss).backward(inputs=self._parameters, retain_graph=retain_graph)

    def update(self) -> None:
        """Let the optimiser take its step, unless the gradient overflowed: then halve the scale instead."""
        self.scaler.step(self.optimiser)
        self.scaler.update()
