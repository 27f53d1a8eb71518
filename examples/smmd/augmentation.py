"""Random crops and mirror images of batches, decided by the seed and the position alone.

So a resumed run sees the same ones, whatever else has drawn random numbers.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

_STREAM = 1
"""Keeps these random numbers apart from those of the order of the images, which come from the seed and the epoch."""


class Batches(Protocol):
    """Batches without end, such as those of `dcgan.batches`."""

    def next(self) -> Tensor:
        """Return the next batch of bytes."""

    def state_dict(self) -> dict[str, int]:
        """Return the position: the seed, the epoch, and the next batch in it."""

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a position."""


class Augmented:
    """Batches of which each image is cropped at random, and mirrored in half of all cases.

    Args:
        batches: the batches `(n, channels, height, width)` of unsigned bytes.
        size: height and width of what is cut out.
    """

    def __init__(self, batches: Batches, size: int) -> None:
        self._batches = batches
        self._size = size

    def next(self) -> Tensor:
        """Return the next batch, `(n, channels, size, size)` of unsigned bytes on the CPU."""
        position = self._batches.state_dict()
        random = np.random.default_rng((position["seed"], position["epoch"], position["batch"], _STREAM))
        return torch.from_numpy(augmented(self._batches.next().numpy(), self._size, random))

    def state_dict(self) -> dict[str, int]:
        """Return the position of the next batch."""
        return self._batches.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a position that :meth:`state_dict` returned."""
        self._batches.load_state_dict(state)


def augmented(images: NDArray[np.uint8], size: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """Return a random `size` x `size` part of each image `(n, channels, height, width)`, in half of all cases mirrored.

    Raises:
        ValueError: if the images are smaller than that.
    """
    height, width = images.shape[2:]
    if min(height, width) < size:
        raise ValueError(f"size: expected at most that of the images, {height} x {width}; got {size}")
    count = len(images)
    top, left = (random.integers(0, length - size + 1, count) for length in (height, width))
    windows = sliding_window_view(images, (size, size), axis=(2, 3))
    cut = windows[np.arange(count), :, top, left]
    mirrored = random.random(count) < 0.5
    return np.where(mirrored[:, None, None, None], cut[..., ::-1], cut)


def to_images(pixels: Tensor, device: torch.device) -> Tensor:
    """Return bytes as float32 numbers in [0, 1] on a device, to which the bytes are moved."""
    return pixels.to(device, non_blocking=True).float().div(255)
