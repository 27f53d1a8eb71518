"""The moving average of the generator, from which samples are drawn."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


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
