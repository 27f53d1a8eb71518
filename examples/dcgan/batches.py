"""Batches without end, in an order that a seed decides, from any position that was left."""

from __future__ import annotations

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

    Raises:
        ValueError: if there are fewer images than a batch needs.
    """

    def __init__(self, images: NDArray[np.uint8], size: int, seed: int, *, rows: slice = slice(None)) -> None:
        if len(images) < size:
            raise ValueError(f"batch_size: expected at most the number of images, {len(images)}; got {size}")
        self._images = images
        self._size = size
        self._rows = rows
        self._seed = seed
        self._go_to(epoch=0, batch=0)

    def _go_to(self, *, epoch: int, batch: int) -> None:
        self._epoch, self._batch = epoch, batch
        self._order = np.random.default_rng((self._seed, epoch)).permutation(len(self._images))

    def next(self) -> Tensor:
        """Return the rows of the next batch, `(n, channels, height, width)` of unsigned bytes on the CPU."""
        if (self._batch + 1) * self._size > len(self._images):
            self._go_to(epoch=self._epoch + 1, batch=0)
        picked = self._order[self._batch * self._size : (self._batch + 1) * self._size]
        self._batch += 1
        return torch.from_numpy(self._images[picked[self._rows]])

    def state_dict(self) -> dict[str, int]:
        """Return the position of the next batch, and in how many images."""
        return {"images": len(self._images), "seed": self._seed, "epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a position that :meth:`state_dict` returned.

        Raises:
            ValueError: if it is one in another number of images.
        """
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
