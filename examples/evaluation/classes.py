"""Mode collapse as a classifier sees it: which classes the images are of, beside those of real images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evaluation.features import outputs
from evaluation.images import Pixels

COVERED = 0.1
"""A class is covered if it is predicted for at least this share of what it is for real images.

A classifier errs, so that hardly a class is predicted for no image at all.
"""


def shares(network: nn.Module, pixels: Pixels, *, batch_size: int, device: torch.device) -> Tensor:
    """Return for which share of images each class is predicted, `(classes,)`."""
    network.to(device)
    counts = torch.zeros((), dtype=torch.int64)
    with torch.inference_mode():
        for part in torch.from_numpy(pixels).split(batch_size):
            _, logits = outputs(network, part.to(device))
            assert logits is not None  # as in every network that is asked for classes
            counts = counts + logits.argmax(1).cpu().bincount(minlength=logits.shape[1])
    return counts.double() / len(pixels)


def coverage(measured: Tensor, real: Tensor) -> float:
    """Return the share of the classes of the real images that are covered, given the shares of the classes."""
    there = real > 0
    return (measured[there] >= COVERED * real[there]).double().mean().item()


def entropy(measured: Tensor) -> float:
    """Return the entropy of the shares of the classes in nats: at most the logarithm of how many there are."""
    return torch.special.entr(measured).sum().item()
