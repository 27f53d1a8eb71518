"""The file format of MNIST and Fashion-MNIST."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_UBYTE_CUBE = 0x00000803
"""The first four bytes of a file of unsigned bytes in three dimensions."""


def read_images(path: Path) -> NDArray[np.uint8]:
    """Return the images `(n, height, width)` of a file, which may be compressed by gzip.

    Raises:
        ValueError: if it is no such file, or not all of one.
    """
    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            content = file.read()
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is damaged ({error}); download it again") from error
    if len(content) < 16 or struct.unpack(">I", content[:4]) != (_UBYTE_CUBE,):
        raise ValueError(f"{path} is no idx file of images")
    shape = struct.unpack(">III", content[4:16])
    pixels = np.frombuffer(content, np.uint8, offset=16)
    if pixels.size != shape[0] * shape[1] * shape[2]:
        raise ValueError(f"{path} is damaged (it has {pixels.size} bytes for images {shape}); download it again")
    return pixels.reshape(shape)
