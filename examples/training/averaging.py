"""The moving average of a generator, which draws the samples."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class MovingAverage(AveragedModel):
    """An exponential moving average of a network's parameters, of which at most the share `decay` stays.

    The first averages are short, so that they do not hold on to the untrained network. Buffers are those of the
    network, since the statistics of batch normalisation are moving averages already. It is made of a network that is on
    its device already: the number of updates stays on the CPU then.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network)
        self.requires_grad_(False).eval()
        self._decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take in the parameters of the network after a step.

        PyTorch's own method waits for the GPU each time: it reads the number of updates from there, or copies it there.
        """
        updates = int(self.n_averaged)
        share = min(self._decay, (1 + updates) / (10 + updates)) if updates else 0.0
        get_ema_multi_avg_fn(share)(list(self.module.parameters()), list(model.parameters()), updates)
        for average, new in zip(self.module.buffers(), model.buffers(), strict=True):
            average.copy_(new)
        self.n_averaged += 1
