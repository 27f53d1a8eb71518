"""Real images that need no download: the handwritten digits that come with scikit-learn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

COUNT = 1797
"""How many digits there are."""

SIZE = 32
"""Height and width of the images that the networks see."""


class Digits(NamedTuple):
    """All digits in a random order."""

    images: Tensor
    """Images `(1797, 1, 32, 32)` in [-1, 1]."""
    labels: Tensor
    """Which digit each one is, `(1797,)`."""

    def halves(self) -> tuple[Tensor, Tensor]:
        """Return two halves of the images, each `(898, 1, 32, 32)`; the last image is in neither."""
        return self.images[:-1:2], self.images[1::2]


def load(seed: int) -> Digits:
    """Return the digits, enlarged from 8x8 pixels to 32x32 and shuffled by `seed`."""
    bunch = load_digits()
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(seed))
    ink = torch.from_numpy(bunch.images)[order].float().div(16).unsqueeze(1)
    large = F.interpolate(ink, size=(SIZE, SIZE), mode="bicubic", align_corners=False)
    # Bicubic interpolation overshoots at sharp edges.
    return Digits(large.clamp(0, 1) * 2 - 1, torch.from_numpy(bunch.target)[order].long())


def batches(images: Tensor, size: int) -> Iterator[Tensor]:
    """Yield batches `(size, 1, 32, 32)` without end, in a new order every epoch; a short last one is left out."""
    while True:
        for picked in torch.randperm(len(images)).split(size):
            if len(picked) == size:
                yield images[picked]
