"""What the KID schedule of the learning rates sees of images: their features in a fixed network."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from dcgan.batches import to_pixels
from evaluation import features
from numpy.typing import NDArray
from torch import Tensor

from smmd.configuration import Configuration

AT_ONCE = 64
"""Images that go through the network at once."""


class Judge(NamedTuple):
    """A network for the features of images, and those of real ones."""

    extract: Callable[[Tensor], Tensor]
    """Maps bytes `(n, channels, size, size)` to features `(n, d)`."""
    real: Tensor
    """Features of the real images, `(m, d)`."""

    def features(self, images: Tensor) -> Tensor:
        """Return the features of images in [-1, 1]."""
        return _in_parts(self.extract, to_pixels(images))


def make_judge(configuration: Configuration, images: NDArray[np.uint8], device: torch.device) -> Judge | None:
    """Return the judge that a configuration asks for, or None.

    Args:
        configuration: has the network and how many images it compares; its seed decides which real ones.
        images: the real images, of the size that is trained with.
        device: where the network is to be.

    Raises:
        ValueError: if there is no such network, or there are too few images.
    """
    chosen = configuration
    if chosen.kid_features is None:
        return None
    if len(images) < chosen.kid_images:
        raise ValueError(f"kid_images: expected at most the number of images, {len(images)}; got {chosen.kid_images}")
    try:
        extract = _extractor(chosen.kid_features, images.shape[1:], device)
    except ModuleNotFoundError as error:
        raise ValueError(f"kid_features: {error}") from error
    picked = np.sort(np.random.default_rng(chosen.seed).permutation(len(images))[: chosen.kid_images])
    return Judge(extract, _in_parts(extract, torch.from_numpy(np.asarray(images[picked])).to(device)))


def _extractor(choice: str, shape: tuple[int, ...], device: torch.device) -> Callable[[Tensor], Tensor]:
    found = features.load(choice, inception_weights=None, shape=shape)
    if found.network is None:
        return _inception(str(found.weights), device)
    network = found.network.to(device)
    return lambda pixels: features.outputs(network, pixels)[0]


def _inception(weights: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=weights).to(device)

    def extract(pixels: Tensor) -> Tensor:
        (found,) = network(pixels.expand(-1, 3, -1, -1))  # which repeats grey images
        return found.double()

    return extract


@torch.no_grad()
def _in_parts(extract: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
    return torch.cat([extract(part) for part in pixels.split(AT_ONCE)])
