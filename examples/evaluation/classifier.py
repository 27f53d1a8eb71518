"""A small classifier of the images that a GAN learns from; its last hidden layer gives features of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from dcgan.atomic import replacing
from dcgan.reading import DamagedFileError, read_tensors
from torch import Tensor, nn

FORMAT = "torch-mmd-losses classifier 1"
"""Says what a file is; the number rises when older files can no longer be read."""

FEATURES = 64
"""Dimension of the features: few enough that thousands of images determine their covariances.

Each has mean 0 and variance 1 over the training images, so that distances do not depend on how a network was trained.
"""


class Classifier(nn.Module):
    """A network from images `(n, channels, size, size)` in [-1, 1] to features `(n, 64)` and logits `(n, classes)`.

    Args:
        size: height and width of the images, a multiple of 8.
        channels: 3 for colours, 1 for grey.
        classes: how many classes there are.
    """

    def __init__(self, *, size: int, channels: int, classes: int) -> None:
        super().__init__()
        self.shape = {"size": size, "channels": channels, "classes": classes}
        self.features = nn.Sequential(
            *(*_halved(channels, 24), *_halved(24, 48), *_halved(48, 96), nn.Flatten()),
            *(nn.Linear(96 * (size // 8) ** 2, FEATURES), nn.BatchNorm1d(FEATURES, affine=False)),
        )
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(FEATURES, classes))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features and the logits."""
        features = self.features(images)
        return features, self.head(features)


def save(path: Path, network: Classifier, provenance: dict[str, Any]) -> None:
    """Write a network with its shape and where it comes from, complete or not at all."""
    with replacing(path) as partial:
        state = {"format": FORMAT, "shape": network.shape, "weights": network.state_dict(), "provenance": provenance}
        torch.save(state, partial)


def load(path: Path) -> tuple[Classifier, dict[str, Any]]:
    """Return a network in eval mode, on the CPU, and where it comes from.

    Raises:
        ValueError: if the file is none that :func:`save` wrote.
    """
    try:
        state = read_tensors(path)
    except DamagedFileError as error:
        raise ValueError(f"features: {path} cannot be read as weights: {error}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"features: {path} is no {FORMAT!r}, which examples/classifier.py writes")
    network = Classifier(**state["shape"])
    network.load_state_dict(state["weights"])
    return network.eval().requires_grad_(False), state["provenance"]


def _halved(channels_in: int, channels_out: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels_in, channels_out, 4, stride=2, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(channels_out), nn.ReLU()
