"""The images of the paper's data sets, and random crops and horizontal flips of batches.

For ImageNet, the paper states the size only. The authors' code downscales to 256 pixels, crops, and then takes every
fourth pixel, since TensorFlow resized in that way. Here each image is downscaled at once, with antialiasing.
"""

from __future__ import annotations

from functools import partial
from operator import methodcaller
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from training import images

CELEBA_MARGIN = 9  # additional pixels on each side of an image of CelebA, for the random crop


def load(
    dataset: str, root: Path, *, size: int, channels: int, split: str = "train", margin: int = CELEBA_MARGIN
) -> images.Images:
    """Return the images `(channels, size, size)` of a data set; those of CelebA have a margin on each side."""
    read = partial(images.load, dataset, root, size=size, channels=channels)
    if dataset == "cifar10" and split == "train":
        return torch.cat([read(split=part) for part in ("train", "test")])  # type: ignore[misc]
    if dataset == "celeba" and split == "train":  # the middle 160 x 160 of the 178 x 218 pixels, with the margin
        box = (9 - margin, 29 - margin, 169 + margin, 189 + margin)
        return images.celeba(root, fit=methodcaller("crop", box))
    if dataset == "imagenet" and split == "train":
        folder = root / "imagenet" / "train"
        source = "ILSVRC2012_img_train.tar on https://image-net.org/download-images"
        images.expect(folder, f"Ask for {source} and unpack it there, one folder for each class.")
        return images.Pictures(images.files(folder), Image.open, images.shorter_side(size), channels)
    return read(split=split)


def augmented(pixels: Tensor, size: int, draws: Tensor) -> Tensor:
    """Return a random crop of each image `(n, channels, height, width)`, flipped horizontally with probability 1/2.

    The `draws` `(n, 3)`, uniform between -1 and 1, determine row, column and flip.
    """
    height, width = pixels.shape[2:]
    ranges = torch.tensor([height - size + 1, width - size + 1], device=pixels.device)
    corners = ((draws[:, :2] + 1) / 2 * ranges).long().clamp(max=ranges - 1)
    inside = torch.arange(size, device=pixels.device)
    rows, columns = corners[:, :1] + inside, corners[:, 1:] + inside
    columns = torch.where(draws[:, 2:] < 0, columns.flip(1), columns)
    each = torch.arange(len(pixels), device=pixels.device)[:, None, None]
    return pixels[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
