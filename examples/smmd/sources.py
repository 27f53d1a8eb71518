"""The images of the paper's data sets, prepared once as one array of bytes on the disk.

* CIFAR-10: the training and the test part, 60,000 images.
* CelebA: the middle 178 x 178 pixels of all 202,599 aligned images, of which :mod:`smmd.augmentation` cuts 160 x 160.
* ImageNet: the 1,281,167 training images, the shorter side reduced to 64 pixels, and cropped. The authors' code reduces
  it to 256 pixels, crops, and then takes every fourth pixel, which is what TensorFlow did when asked to resize; the
  paper says no more than the size. Here each image is reduced at once, without aliasing.
* Fashion-MNIST, with a margin that makes it 32 x 32, for trials on a CPU. It is not in the paper.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from dcgan import sources
from dcgan.prepared import Report, stored
from dcgan.sources import MissingDataError, Pictures, Source
from numpy.typing import NDArray
from PIL import Image

CELEBA_MARGIN = 9
"""Pixels around an image of CelebA from which the random crop may take it, on each side."""


def load(dataset: str, root: Path, *, size: int, channels: int = 3, report: Report = print) -> NDArray[np.uint8]:
    """Return the images `(n, channels, height, width)` of a data set, mapped from the disk; prepare them at first.

    The array is `prepared/smmd-<data set>-<shape>.npy` below `root`; delete it to have it made anew. Those of CelebA
    are larger than `size` by the margin on both sides. `fake` images are made in memory.

    Args:
        dataset: a data set of the configuration.
        root: where the data sets are.
        size: height and width of the images that are trained with.
        channels: 3 for colours, 1 for grey.
        report: is told how far the preparation is.

    Raises:
        MissingDataError: if the data set is neither prepared nor there.
        ValueError: if the array is not one of such images.
    """
    if dataset == "fake":
        return np.asarray(sources.fake(size, channels))
    side = size + 2 * margin(dataset)
    shape = (channels, side, side)
    path = root / "prepared" / f"smmd-{dataset}-{'x'.join(map(str, shape))}.npy"
    return stored(path, shape, partial(_READERS[dataset], root), report)


def margin(dataset: str) -> int:
    """Return by how many pixels on each side the images of a data set are larger than those that are trained with."""
    return CELEBA_MARGIN if dataset == "celeba" else 0


def cifar10(root: Path) -> Source:
    """Return the training and the test images of CIFAR-10, in this order."""
    training = sources.cifar10(root)  # which says what to do if there is nothing
    from torchvision import datasets

    test = datasets.CIFAR10(root, train=False).data.transpose(0, 3, 1, 2)
    return np.concatenate([np.asarray(training), test])


def celeba(root: Path) -> Source:
    """Return the middle of all aligned images of CelebA, 178 x 178 pixels, not reduced."""
    folder = root / "celeba" / "img_align_celeba"
    files = sorted(folder.glob("*.jpg"))
    if not files:
        raise MissingDataError(
            f"There are no images in {folder}. Download img_align_celeba.zip (Align&Cropped Images) from "
            f"https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html and unpack it in {folder.parent}."
        )
    return Pictures(files, Image.open, crop_celeba)


def imagenet(root: Path) -> Source:
    """Return the training images of ImageNet (ILSVRC2012) with the shorter side reduced to 64 pixels, and cropped."""
    folder = root / "imagenet" / "train"
    if not folder.exists():
        raise MissingDataError(
            f"There is no {folder}. Ask for ILSVRC2012_img_train.tar on https://image-net.org/download-images and "
            "unpack it there, one folder for each class."
        )
    return sources.folder(folder, 64, 3)


def crop_celeba(image: Image.Image) -> Image.Image:
    """Return the middle 178 x 178 pixels of an aligned image of CelebA, which has 178 x 218."""
    return image.crop((0, 20, 178, 198))


_READERS = {"cifar10": cifar10, "celeba": celeba, "imagenet": imagenet, "fashion-mnist": sources.fashion_mnist}
