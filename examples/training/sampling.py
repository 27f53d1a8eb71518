"""Sampling from a trained generator: its moving average, and the interface through which evaluations draw samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.checkpoints import State
from training.images import Images


class MovingAverage(AveragedModel):
    """An exponential moving average of a network's parameters.

    The first updates use a smaller decay, so that the untrained network is soon forgotten. Buffers are copied from the
    network, since the statistics of batch normalisation are moving averages already. Move the network to its device
    first; the number of updates then stays on the CPU.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network)
        self.requires_grad_(False).eval()
        self._decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Update the average after a step of the network.

        PyTorch's method would wait for the GPU each time, to read the number of updates or to copy it to the GPU.
        """
        updates = int(self.n_averaged)
        decay = min(self._decay, (1 + updates) / (10 + updates)) if updates else 0.0
        get_ema_multi_avg_fn(decay)(list(self.module.parameters()), list(model.parameters()), updates)
        for average, new in zip(self.module.buffers(), model.buffers(), strict=True):
            average.copy_(new)
        self.n_averaged += 1


def averaged(state: State) -> State:
    """Return the moving average of the generator in a checkpoint, as a state dict of the generator."""
    return {name.removeprefix("module."): value for name, value in state["average"].items() if name != "n_averaged"}


class Sampler(NamedTuple):
    """A generator with the noise and the range of its paper, and the real images to compare with."""

    generator: nn.Module  # maps noise (n, dimension) to images; has its initial weights
    noise: Callable[[int, torch.Generator], Tensor]  # draws noise for a number of images, on the CPU
    centred: Callable[[Tensor], Tensor]  # maps generated images to [-1, 1]
    real: Callable[[Path, str], Images]  # reads real images, given the folder of the data sets and a split
