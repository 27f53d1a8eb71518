"""Batches without end, in an order that a seed decides, from any position that was left."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Batches:
    """Batches of images without end: every epoch has a new order, and a short last batch is left out.

    The position, which :meth:`state_dict` returns, is three numbers; the batches that follow depend on nothing else.

    Args:
        images: images `(n, channels, size, size)` of unsigned bytes.
        size: images in a batch.
        seed: decides the order.
        rows: which images of each batch to return; the other ones are another process's.
        workers: threads that read batches ahead; none read them when they are asked for. Threads suffice, since NumPy
            copies images without holding the interpreter, and need not hand a batch over as processes would.
        pinned: put batches into memory from which a GPU copies while it computes.

    Raises:
        ValueError: if there are fewer images than a batch needs.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        size: int,
        seed: int,
        *,
        rows: slice = slice(None),
        workers: int = 0,
        pinned: bool = False,
    ) -> None:
        if len(images) < size:
            raise ValueError(f"batch_size: expected at most the number of images, {len(images)}; got {size}")
        self._images = images
        self._size = size
        self._rows = rows
        self._seed = seed
        self._pinned = pinned
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="batches") if workers else None
        self._depth = 2 * workers + 1
        self._go_to(epoch=0, batch=0)

    def _go_to(self, *, epoch: int, batch: int) -> None:
        self._epoch, self._batch = epoch, batch
        self._upcoming = self._picks(epoch, batch)
        self._ready: deque[tuple[int, int, Callable[[], Tensor]]] = deque()

    def _picks(self, epoch: int, batch: int) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
        """Yield for each batch the position after it, and which images are its."""
        while True:
            order = np.random.default_rng((self._seed, epoch)).permutation(len(self._images))
            while (batch + 1) * self._size <= len(order):
                picked = order[batch * self._size : (batch + 1) * self._size]
                batch += 1
                yield epoch, batch, picked[self._rows]
            epoch, batch = epoch + 1, 0

    def _begin_to_read(self, picked: NDArray[np.int64]) -> Callable[[], Tensor]:
        """Return what returns the images, when it has them."""
        return partial(self._read, picked) if self._pool is None else self._pool.submit(self._read, picked).result

    def _read(self, picked: NDArray[np.int64]) -> Tensor:
        pixels = torch.from_numpy(self._images[picked])
        return pixels.pin_memory() if self._pinned else pixels

    def next(self) -> Tensor:
        """Return the rows of the next batch, `(n, channels, height, width)` of unsigned bytes on the CPU."""
        while len(self._ready) < self._depth:
            epoch, batch, picked = next(self._upcoming)
            self._ready.append((epoch, batch, self._begin_to_read(picked)))
        self._epoch, self._batch, read = self._ready.popleft()
        return read()

    def state_dict(self) -> dict[str, int]:
        """Return the position of the next batch, and in how many images."""
        return {"images": len(self._images), "seed": self._seed, "epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a position that :meth:`state_dict` returned.

        Raises:
            ValueError: if it is one in another number of images, or not a position.
        """
        if not all(type(number) is int and number >= 0 for number in state.values()):
            raise ValueError(f"batches: expected numbers >= 0, got {state}")
        if state["images"] != len(self._images):
            raise ValueError(
                f"it was trained with a data set of {state['images']:,} images, and this one has {len(self._images):,}"
            )
        self._seed = state["seed"]
        self._go_to(epoch=state["epoch"], batch=state["batch"])


def to_images(pixels: Tensor, device: torch.device) -> Tensor:
    """Return bytes as float32 numbers in [-1, 1] on a device, to which the bytes are moved."""
    return pixels.to(device, non_blocking=True).float().div(127.5).sub(1)


def to_pixels(images: Tensor) -> Tensor:
    """Return images in [-1, 1] as bytes, rounded; the inverse of :func:`to_images`."""
    return images.clamp(-1, 1).add(1).mul(127.5).round().byte()
