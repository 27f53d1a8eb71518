"""Random numbers of a training, with states that are saved in checkpoints, so that runs resume exactly."""

from __future__ import annotations

from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor


class Randomness:
    """A generator for the noise, seeded alike in all processes, and PyTorch's global generators."""

    def __init__(self, fabric: Fabric, seed: int) -> None:
        self._fabric = fabric
        self._share = slice(fabric.global_rank, None, fabric.world_size)
        fabric.seed_everything(seed, verbose=False)
        self.generator = torch.Generator(fabric.device).manual_seed(seed)

    def normal(self, count: int, dimension: int) -> Tensor:
        """Return this process's share `(count / processes, dimension)` of standard normal noise."""
        return torch.randn(count, dimension, generator=self.generator, device=self._fabric.device)[self._share]

    def uniform(self, count: int, dimension: int) -> Tensor:
        """Return this process's share `(count / processes, dimension)` of uniform noise between -1 and 1."""
        return torch.rand(count, dimension, generator=self.generator, device=self._fabric.device)[self._share] * 2 - 1

    def state_dict(self) -> dict[str, Any]:
        return {
            "noise": self.generator.get_state(),
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore saved states; those of GPUs only if this machine has as many GPUs."""
        self.generator.set_state(state["noise"].cpu())
        torch.set_rng_state(state["cpu"].cpu())
        if len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([each.cpu() for each in state["cuda"]])
