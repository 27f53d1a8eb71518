"""Which forwards in training iterate."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from torch_mmd_losses import autograd

SKIPPED_FORWARDS = 2
"""Forwards that need not iterate after the first one at a new weight: a GAN step has three."""

WEIGHT_CHANGED = SKIPPED_FORWARDS + 1
"""Stands for the number of forwards to skip where the next forward will be the first at a new weight."""


class IterationSchedule:
    """Decides which training forwards iterate: all, but for up to two after one that found the weight changed.

    Whether the weight has changed is read from its version, which not everything that writes to a weight counts up:
    fused optimisers and writes to `.data` do not. So a version that has changed is believed, and one that has not is
    not: only a change that was seen spares the next forwards an iteration, and only two of them. Where changes are
    never seen, every forward iterates. All ranks of a distributed job decide alike: they make the same writes.
    """

    def __init__(self, forwards_to_skip: int = 0) -> None:
        self._forwards_to_skip = forwards_to_skip
        self._recorded: tuple[weakref.ref[Tensor], int] | None = None

    def record_weight(self, weight: Tensor) -> None:
        """Take the weight as it is for the one that the vectors belong to."""
        untracked = torch.compiler.is_compiling() or weight.is_inference()
        self._recorded = None if untracked else (weakref.ref(weight), weight._version)

    def forwards_to_skip(self) -> int:
        """Return how many of the next forwards to skip, or `WEIGHT_CHANGED`."""
        if self._recorded is None:
            return self._forwards_to_skip
        weight, version = self._recorded[0](), self._recorded[1]
        return self._forwards_to_skip if weight is None or weight._version == version else WEIGHT_CHANGED

    def must_iterate(self, weight: Tensor) -> bool:
        """Whether this forward has to iterate; go on to the next."""
        # Compiled and captured code cannot count forwards, and inference tensors have no version.
        if not autograd.plain_autograd(weight) or weight.is_inference() or _is_captured_in_cuda_graph(weight):
            return True
        # Loaded, copied or replaced: not a change that was seen.
        if self._recorded is None or self._recorded[0]() is not weight:
            self.record_weight(weight)
        to_skip = self.forwards_to_skip()
        self.record_weight(weight)
        self._forwards_to_skip = SKIPPED_FORWARDS if to_skip == WEIGHT_CHANGED else max(to_skip - 1, 0)
        return to_skip in (0, WEIGHT_CHANGED)


def _is_captured_in_cuda_graph(weight: Tensor) -> bool:
    """Whether this forward goes into a CUDA graph, whose replays would all do what the first one did."""
    return weight.is_cuda and torch.cuda.is_current_stream_capturing()
