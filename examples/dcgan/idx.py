"""The file format of MNIST and Fashion-MNIST."""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_UBYTES = 0x00000800
"""The first four bytes of a file of unsigned bytes, without the number of its dimensions, which is added."""


def read_images(path: Path) -> NDArray[np.uint8]:
    """Return the images `(n, height, width)` of a file, which may be compressed by gzip.

    Raises:
        ValueError: if it is no such file, or not all of one.
    """
    return _read(path, 3, "images")


def read_labels(path: Path) -> NDArray[np.uint8]:
    """Return the labels `(n,)` of a file, which may be compressed by gzip.

    Raises:
        ValueError: if it is no such file, or not all of one.
    """
    return _read(path, 1, "labels")


def _read(path: Path, dimensions: int, what: str) -> NDArray[np.uint8]:
    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            content = file.read()
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is damaged ({error}); download it again") from error
    start = 4 + 4 * dimensions
    if len(content) < start or struct.unpack(">I", content[:4]) != (_UBYTES + dimensions,):
        raise ValueError(f"{path} is no idx file of {what}")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    pixels = np.frombuffer(content, np.uint8, offset=start)
    if pixels.size != math.prod(shape):
        raise ValueError(f"{path} is damaged (it has {pixels.size} bytes for {what} {shape}); download it again")
    return pixels.reshape(shape)
