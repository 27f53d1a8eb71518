"""Data sets as one array of bytes on the disk, prepared once, so that reading a batch takes no decoding."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from dcgan.atomic import replacing
from dcgan.sources import Source, make_source

REPORT_EVERY = 10_000
"""Images from one report to the next."""

Report = Callable[[str], None]


def load(
    dataset: str, root: Path, *, size: int, channels: int, split: str = "train", report: Report = print
) -> NDArray[np.uint8]:
    """Return the images `(n, channels, size, size)` of a data set, mapped from the disk; prepare them at first.

    The array is `prepared/<data set>-<channels>x<size>x<size>.npy` below `root`, with `-test` after the data set for
    its test split; delete it to have it made anew. `fake` images are made in memory. Several processes may prepare at
    once: all make the same.

    Raises:
        MissingDataError: if the data set is neither prepared nor there.
        ValueError: if the array is not one of such images, or the data set has no such split.
    """
    shape = (channels, size, size)
    if dataset == "fake":
        return np.asarray(make_source(dataset, root, size=size, channels=channels, split=split))
    path = root / "prepared" / f"{dataset}{'' if split == 'train' else f'-{split}'}-{'x'.join(map(str, shape))}.npy"
    make = partial(make_source, dataset, root, size=size, channels=channels, split=split)
    return stored(path, shape, make, report)


def stored(path: Path, shape: tuple[int, ...], make: Callable[[], Source], report: Report) -> NDArray[np.uint8]:
    """Return the images `(n, *shape)` of an array, mapped from the disk; at first make their source, and write them.

    Raises:
        ValueError: if the array is not one of such images.
    """
    if not path.exists():
        write(make(), shape, path, report)
    images = np.load(path, mmap_mode="r")
    if images.dtype != np.uint8 or images.shape[1:] != shape:
        raise ValueError(f"{path} holds {images.dtype} of shape {images.shape}; delete it to have it made anew")
    return images


def write(source: Source, shape: tuple[int, ...], path: Path, report: Report) -> None:
    """Write all images of a source, of one shape each, as an array `(n, *shape)` that is complete or not there."""
    count = len(source)
    with replacing(path) as partial:
        images = open_memmap(partial, mode="w+", dtype=np.uint8, shape=(count, *shape))
        for index in range(count):
            images[index] = source[index]
            if (index + 1) % REPORT_EVERY == 0 or index + 1 == count:
                report(f"Preparing {path}: {index + 1:,} of {count:,} images")
        images.flush()
