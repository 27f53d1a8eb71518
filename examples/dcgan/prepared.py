"""Data sets as one array of bytes on the disk, prepared once, so that reading a batch takes no decoding."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dcgan.atomic import replacing, write_text
from dcgan.reading import DamagedFileError
from dcgan.sources import Source, listing, make_source

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
    return stored(path, shape, make, report, listing(root) if dataset == "folder" else None)


def stored(
    path: Path, shape: tuple[int, ...], make: Callable[[], Source], report: Report, files: str | None = None
) -> NDArray[np.uint8]:
    """Return the images `(n, *shape)` of an array, mapped from the disk; at first make their source, and write them.

    Args:
        path: the array.
        shape: of an image.
        make: makes the source.
        report: is told how far the preparation is.
        files: a digest of the files that the source reads, to notice when they change; None if they do not.

    Raises:
        ValueError: if the array is not one of such images, or was made of other files.
    """
    noted = path.with_suffix(".files")
    if not path.exists():
        source = make()
        if files is not None:  # before the array: an array without it would be taken for one of other files
            write_text(noted, files)
        write(source, shape, path, report)
    elif files is not None and (not noted.exists() or noted.read_text(encoding="utf-8") != files):
        raise ValueError(f"{path} was prepared from other images than are there now; delete it to have it made anew")
    try:
        images = np.load(path, mmap_mode="r")
    except (EOFError, ValueError) as error:
        raise DamagedFileError(f"{path} is damaged ({error}); delete it to have it made anew") from error
    if images.dtype != np.uint8 or images.shape[1:] != shape:
        raise ValueError(f"{path} holds {images.dtype} of shape {images.shape}; delete it to have it made anew")
    return images


def write(source: Source, shape: tuple[int, ...], path: Path, report: Report) -> None:
    """Write all images of a source, of one shape each, as an array `(n, *shape)` that is complete or not there."""
    count = len(source)
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
    # Written, not mapped: the system ends a process that writes to mapped memory while the disk is full.
    with replacing(path) as partial, partial.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for index in range(count):
            file.write(np.broadcast_to(source[index], shape).tobytes())
            if (index + 1) % REPORT_EVERY == 0 or index + 1 == count:
                report(f"Preparing {path}: {index + 1:,} of {count:,} images")
