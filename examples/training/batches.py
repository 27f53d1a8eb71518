"""An endless stream of batches. Its order depends only on a seed and on the position, so that runs resume exactly."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training.errors import RefusedError


def positions(
    images: int, batch_size: int, *, seed: int, start: int = 0, rank: int = 0, world_size: int = 1
) -> Iterator[list[int]]:
    """Yield the indices of one process's share of each joint batch, from batch number `start` on, without end.

    Every epoch has a new order; a short last batch is dropped. Process r of w takes the rows r, r + w, r + 2 w, ... of
    each joint batch, so the joint batches do not depend on the number of processes.
    """
    epoch, batch = divmod(start, images // batch_size)
    while True:
        order = np.random.default_rng((seed, epoch)).permutation(images)
        for first in range(batch * batch_size, images - batch_size + 1, batch_size):
            yield order[first : first + batch_size][rank::world_size].tolist()
        epoch, batch = epoch + 1, 0


def batches(
    images: Dataset[Tensor], batch_size: int, *, fabric: Fabric, seed: int, start: int, workers: int
) -> Iterator[Tensor]:
    """Return batches `(batch_size / processes, channels, height, width)` of unsigned bytes on the process's device.

    The first `start` batches are skipped. `workers` is the number of processes that read images ahead; with 0, images
    are read when they are needed.
    """
    count = len(images)  # type: ignore[arg-type]
    if count < batch_size:
        raise RefusedError(f"batch_size: expected at most the number of images, {count}; got {batch_size}")
    if batch_size % fabric.world_size:
        raise RefusedError(f"batch_size: expected a multiple of the {fabric.world_size} processes, got {batch_size}")
    share = {"rank": fabric.global_rank, "world_size": fabric.world_size}
    loader = DataLoader(
        images,
        batch_sampler=positions(count, batch_size, seed=seed, start=start, **share),
        num_workers=workers,
        pin_memory=fabric.device.type == "cuda",
        collate_fn=collated,
        worker_init_fn=_leave_signals,
        generator=torch.Generator(),  # otherwise the loader would draw from the global one
    )
    on_device: Any = fabric.setup_dataloaders(loader, use_distributed_sampler=False)
    return iter(on_device)


def centred(pixels: Tensor) -> Tensor:
    """Return bytes as float32 numbers in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def to_pixels(images: Tensor) -> Tensor:
    """Return numbers in [-1, 1] as bytes."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def collated(found: Tensor | list[Tensor]) -> Tensor:
    """Return a batch from the images that a data set returns, one by one or as a batch."""
    return found if isinstance(found, Tensor) else torch.stack(found)


def _leave_signals(_: int) -> None:
    # Terminals and schedulers signal all processes. The training ends its workers itself, after it has saved.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
