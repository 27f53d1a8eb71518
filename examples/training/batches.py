"""Batches without end whose order depends on a seed and on the position alone, so that a run resumes anywhere."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from training.errors import RefusedError


class Positions(Sampler[list[int]]):
    """The indices of a process's share of each joint batch of so many images, from the batch `start` on, without end.

    Every epoch has a new order, and leaves out a short last batch. Of each joint batch, process r of w has the rows r,
    r + w, r + 2 w, ...: the same images whatever the number of processes.
    """

    def __init__(
        self, images: int, batch_size: int, *, seed: int, start: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self._images, self._batch_size, self._seed, self._start = images, batch_size, seed, start
        self._share = slice(rank, None, world_size)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the indices of batch after batch."""
        epoch, batch = divmod(self._start, self._images // self._batch_size)
        while True:
            order = np.random.default_rng((self._seed, epoch)).permutation(self._images)
            for first in range(batch * self._batch_size, self._images - self._batch_size + 1, self._batch_size):
                yield order[first : first + self._batch_size][self._share].tolist()
            epoch, batch = epoch + 1, 0


def batches(
    images: Dataset[Tensor], batch_size: int, *, fabric: Fabric, seed: int, start: int, workers: int
) -> Iterator[Tensor]:
    """Return batches `(batch_size / processes, channels, height, width)` of unsigned bytes on the process's device.

    They go on after `start` batches. `workers` processes read images ahead; 0 reads them when they are asked for.
    """
    count = len(images)  # type: ignore[arg-type]
    if count < batch_size:
        raise RefusedError(f"batch_size: expected at most the number of images, {count}; got {batch_size}")
    if batch_size % fabric.world_size:
        raise RefusedError(f"batch_size: expected a multiple of the {fabric.world_size} processes, got {batch_size}")
    share = {"rank": fabric.global_rank, "world_size": fabric.world_size}
    loader = DataLoader(
        images,
        batch_sampler=Positions(count, batch_size, seed=seed, start=start, **share),
        num_workers=workers,
        pin_memory=fabric.device.type == "cuda",
        collate_fn=_collated,
        worker_init_fn=_leave_signals,
        generator=torch.Generator(),  # else the loader would draw from the global one
    )
    on_device: Any = fabric.setup_dataloaders(loader, use_distributed_sampler=False)
    return iter(on_device)


def centred(pixels: Tensor) -> Tensor:
    """Return bytes as float32 numbers in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def to_pixels(images: Tensor) -> Tensor:
    """Return numbers in [-1, 1] as bytes."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def _collated(found: Tensor | list[Tensor]) -> Tensor:
    return found if isinstance(found, Tensor) else torch.stack(found)


def _leave_signals(_: int) -> None:
    # The terminal and schedulers signal all processes; the training ends its workers when it has saved.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
