"""Which forwards in training iterate."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from torch_mmd_losses import autograd

SPARED = 2
"""Forwards that need not iterate after the first one at a new weight: a GAN step has three."""

CHANGED = SPARED + 1
"""Stands for the number of spared forwards where the next forward will be the first at a new weight."""


class Schedule:
    """Decides which training forwards iterate: all, but for up to two after one that found the weight changed.

    Whether the weight has changed is read from its version, which not everything that writes to a weight counts up:
    fused optimisers and writes to `.data` do not. So a version that has changed is believed, and one that has not is
    not: only a change that was seen spares the next forwards an iteration, and only two of them. Where changes are
    never seen, every forward iterates. All ranks of a distributed job decide alike: they make the same writes.
    """

    def __init__(self, spared: int = 0) -> None:
        self._spared = spared
        self._seen: tuple[weakref.ref[Tensor], int] | None = None

    def see(self, weight: Tensor) -> None:
        """Take the weight as it is for the one that the vectors belong to."""
        untracked = torch.compiler.is_compiling() or weight.is_inference()
        self._seen = None if untracked else (weakref.ref(weight), weight._version)

    def count(self) -> int:
        """Return how many of the next forwards are spared, or `CHANGED`."""
        if self._seen is None:
            return self._spared
        weight, version = self._seen[0](), self._seen[1]
        return self._spared if weight is None or weight._version == version else CHANGED

    def is_due(self, weight: Tensor) -> bool:
        """Whether this forward has to iterate; go on to the next."""
        # Compiled and captured code cannot count forwards, and inference tensors have no version.
        if not autograd.plain_autograd(weight) or weight.is_inference() or _is_captured(weight):
            return True
        # Loaded, copied or replaced: not a change that was seen.
        if self._seen is None or self._seen[0]() is not weight:
            self.see(weight)
        count = self.count()
        self.see(weight)
        self._spared = SPARED if count == CHANGED else max(count - 1, 0)
        return count in (0, CHANGED)


def _is_captured(weight: Tensor) -> bool:
    """Whether this forward goes into a CUDA graph, whose replays would all do what the first one did."""
    return weight.is_cuda and torch.cuda.is_current_stream_capturing()
