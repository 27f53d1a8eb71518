"""What the images of a data set are like: their size and channels."""

from __future__ import annotations

from collections.abc import Mapping

Formats = Mapping[str, tuple[int, int] | None]
"""Data sets, each with the size and the channels of its images, or None if it has images of any."""


def check_format(formats: Formats, dataset: str, size: int, channels: int) -> None:
    """Raise `ValueError` if a data set has images of another size or of other channels."""
    expected = formats[dataset]
    if expected is not None and (size, channels) != expected:
        raise ValueError(
            f"dataset: {dataset} has images of size {expected[0]} with {expected[1]} channels, "
            f"but size and channels are {size} and {channels}"
        )
