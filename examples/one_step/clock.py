"""The CPU time of a training, saved in its checkpoints, so that trainings can be compared at equal time."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning_fabric import Fabric


class Clock:
    """Counts the CPU seconds of the iterations, of all cores and processes together."""

    def __init__(self, fabric: Fabric) -> None:
        self._fabric, self.seconds, self._start = fabric, 0.0, 0.0

    def start(self) -> None:
        """Begin an iteration."""
        self._start = time.process_time()

    def stop(self) -> None:
        """End an iteration."""
        seconds: Any = time.process_time() - self._start
        if self._fabric.world_size > 1:
            seconds = self._fabric.all_reduce(torch.tensor(seconds, device=self._fabric.device), reduce_op="sum")
        self.seconds += float(seconds)

    def state_dict(self) -> dict[str, float]:
        """Return the seconds."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from saved seconds."""
        self.seconds = state["seconds"]
