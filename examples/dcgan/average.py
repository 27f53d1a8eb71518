"""The moving average of a generator, which draws the samples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


@torch.no_grad()
def follow(
    average: nn.Module,
    network: nn.Module,
    *,
    decay: float,
    iteration: int,
    buffer: Callable[[Tensor], Tensor] = lambda own: own,
) -> None:
    """Move an average towards a network, in place.

    Args:
        average: the average so far, a copy of the network's kind.
        network: the network after an update.
        decay: share of the average that stays, at most.
        iteration: which update it was, counted from 1. The first averages are short, so that they do not hold on to the
            untrained network.
        buffer: what to take of each buffer, such as its mean over processes. Buffers are not averaged over time, since
            the statistics of batch normalisation are moving averages already.
    """
    decay = min(decay, (1 + iteration) / (10 + iteration))
    for averaged, current in zip(average.parameters(), network.parameters(), strict=True):
        averaged.lerp_(current, 1 - decay)
    for copied, own in zip(average.buffers(), network.buffers(), strict=True):
        copied.copy_(buffer(own))
