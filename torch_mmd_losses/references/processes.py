"""Processes of a group, each of which has one shard of a reference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch.distributed as dist

from torch_mmd_losses.references import row_sums


class Part(NamedTuple):
    """The part of a reference that a process has: the shard `rank` of `world`. A whole reference is 0 of 1."""

    rank: int
    world: int

    def check_is_whole(self, name: str, purpose: str) -> None:
        """Raise if this is a shard.

        Args:
            name: the argument or arguments that a shard does not take.
            purpose: the rest of the phrase "a whole reference ...", such as "for drmmd2".
        """
        if self.world > 1:
            raise ValueError(f"{name}: expected a whole reference {purpose}, got the shard {self.rank} of {self.world}")

    def check_processes(self) -> None:
        """Raise in all processes if they do not have one shard each."""
        is_alone = not (dist.is_available() and dist.is_initialized())
        rank, world = (0, 1) if is_alone else (dist.get_rank(), dist.get_world_size())
        if world != self.world:
            raise RuntimeError(f"world: expected {self.world} processes, as many as shards, got {world}")
        if rank != self.rank:
            raise RuntimeError(f"rank: expected process {self.rank} for the shard {self.rank}, got process {rank}")

    @contextmanager
    def announced_errors(self, points: object) -> Iterator[None]:
        """Tell the other processes about any error in the block. They would wait for the points of this one."""
        self.check_processes()
        try:
            yield
        except Exception:
            row_sums.refuse(points)
            raise
