"""Samples of all losses after as many iterations, from the sheets among the raw logs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from dcgan.record import GAP
from numpy.typing import NDArray

from studies import protocol, sheets

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = (9.6, 5.2)

COLUMNS = 12
"""Images of each loss."""

SIDE = 32 + 2 * GAP
"""Pixels of an image on a sheet, with what is around it."""


def draw(figure: Figure, raw: Path) -> None:
    """Draw a row of images for each loss, an empty one if its sheet is not there."""
    runs = sheets.chosen(raw)
    paths = [sheets.path(raw, runs[loss]) if loss in runs else None for loss in protocol.LOSSES]
    empty = np.full((SIDE, COLUMNS * SIDE), 255, np.uint8)
    rows = [empty if path is None or not path.exists() else first(path) for path in paths]
    axes = figure.subplots()
    axes.imshow(np.concatenate(rows), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks(SIDE * (np.arange(len(rows)) + 0.5), protocol.LOSSES)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def first(path: Path, count: int = COLUMNS) -> NDArray[np.uint8]:
    """Return the first images of a sheet beside each other."""
    from PIL import Image

    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("L"))
    rows = np.concatenate(np.split(pixels, len(pixels) // SIDE), axis=1)
    return rows[:, : count * SIDE]
