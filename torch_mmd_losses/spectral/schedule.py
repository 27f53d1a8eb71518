"""The schedule that decides which forward passes in training mode advance the iteration."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from torch_mmd_losses import autograd

SKIPPED_FORWARDS = 2
"""Forward passes that need not iterate after the first one at a new weight. A GAN step has three passes."""

WEIGHT_CHANGED = SKIPPED_FORWARDS + 1
"""Stored in place of the number of forward passes to skip if the next pass is the first at a new weight."""


class IterationSchedule:
    """Decides in each forward pass in training mode whether to iterate.

    Every pass iterates, except up to two passes that follow a pass at a changed weight.

    A change is detected by the version counter of the weight. Fused optimisers and writes to `.data` do not increase
    this counter, so an equal version does not prove an equal weight. Therefore passes are skipped only after a detected
    change, and only two of them. If changes are never detected, every pass iterates. All ranks of a distributed job
    decide alike, because they make the same writes.
    """

    def __init__(self, forwards_to_skip: int = 0) -> None:
        self._forwards_to_skip = forwards_to_skip
        self._recorded: tuple[weakref.ref[Tensor], int] | None = None

    def record_weight(self, weight: Tensor) -> None:
        """Remember the weight and its version, to detect the next change."""
        untracked = torch.compiler.is_compiling() or weight.is_inference()
        self._recorded = None if untracked else (weakref.ref(weight), weight._version)

    def forwards_to_skip(self) -> int:
        """Return the number of forward passes to skip from here on, or `WEIGHT_CHANGED`."""
        if self._recorded is None:
            return self._forwards_to_skip
        weight, version = self._recorded[0](), self._recorded[1]
        return self._forwards_to_skip if weight is None or weight._version == version else WEIGHT_CHANGED

    def must_iterate(self, weight: Tensor) -> bool:
        """Count one forward pass and return whether this pass has to iterate."""
        # Compiled and captured code cannot count forward passes, and inference tensors have no version.
        if not autograd.reverse_mode_only(weight) or weight.is_inference() or _is_captured_in_cuda_graph(weight):
            return True
        # A weight that was loaded, copied or replaced does not count as a detected change.
        if self._recorded is None or self._recorded[0]() is not weight:
            self.record_weight(weight)
        to_skip = self.forwards_to_skip()
        self.record_weight(weight)
        self._forwards_to_skip = SKIPPED_FORWARDS if to_skip == WEIGHT_CHANGED else max(to_skip - 1, 0)
        return to_skip in (0, WEIGHT_CHANGED)


def _is_captured_in_cuda_graph(weight: Tensor) -> bool:
    """Whether this forward pass is captured in a CUDA graph, whose replays all repeat the captured decision."""
    return weight.is_cuda and torch.cuda.is_current_stream_capturing()
