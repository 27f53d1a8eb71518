"""Which class each image of a data set is of, in the order of its images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dcgan.idx import read_labels
from dcgan.sources import fashion_mnist_file

CLASSES = {
    "fashion-mnist": (
        *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    ),
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
}
"""The data sets that have labels, with the names of their classes."""


def load(dataset: str, root: Path, *, split: str = "train") -> NDArray[np.int64]:
    """Return the class of each image, `(n,)`.

    Raises:
        MissingDataError: if they are not there. Those of CIFAR-10 are where its images are, which are read before.
        ValueError: if the data set has no labels.
    """
    if dataset == "fashion-mnist":
        return read_labels(fashion_mnist_file(root, split, "labels")).astype(np.int64)
    if dataset == "cifar10":
        from torchvision import datasets

        return np.asarray(datasets.CIFAR10(root, train=split == "train").targets, dtype=np.int64)
    raise ValueError(f"dataset: expected one with labels ({', '.join(CLASSES)}), got {dataset}")
