"""The moving average of a generator, which draws the samples."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """Return an exponential moving average of a network's parameters, of which at most the share `decay` stays.

    The first averages are short, so that they do not hold on to the untrained network. Buffers are those of the
    network, since the statistics of batch normalisation are moving averages already.
    """

    @torch.no_grad()
    def follow(averages: Any, values: Any, updates: Any) -> None:  # noqa: ANN401
        share = min(decay, (1 + int(updates)) / (10 + int(updates)))
        torch._foreach_lerp_(list(averages), list(values), 1 - share)

    return AveragedModel(network, multi_avg_fn=follow).requires_grad_(False).eval()
