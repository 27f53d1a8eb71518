"""An endless stream of batches. Its order depends only on a seed and on the position, so that runs resume exactly."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader

from training.errors import RefusedError
from training.images import Images
from training.settings import Settings


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


def batches(images: Images, batch_size: int, settings: Settings, *, fabric: Fabric, start: int) -> Iterator[Tensor]:
    """Return batches `(batch_size / processes, channels, height, width)` of unsigned bytes on the process's device.

    The first `start` batches are skipped. `settings.workers` processes read images ahead; with 0, images are read when
    they are needed.
    """
    if len(images) < batch_size:
        raise RefusedError(f"batch_size: expected at most the number of images, {len(images)}; got {batch_size}")
    if batch_size % fabric.world_size:
        raise RefusedError(f"batch_size: expected a multiple of the {fabric.world_size} processes, got {batch_size}")
    share = {"rank": fabric.global_rank, "world_size": fabric.world_size}
    loader: Any = DataLoader(
        images,  # type: ignore[arg-type]
        batch_size=None,  # the sampler has the indices of whole batches
        sampler=positions(len(images), batch_size, seed=settings.seed, start=start, **share),
        num_workers=settings.workers,
        pin_memory=fabric.device.type == "cuda",
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


def _leave_signals(_: int) -> None:
    # Terminals and schedulers signal all processes. The training ends its workers itself, after it has saved.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
