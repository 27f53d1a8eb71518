"""The log and the samples of a run for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


class MissingBoardError(Exception):
    """TensorBoard is wanted and not installed."""


class Board:
    """What TensorBoard shows of a run.

    Args:
        folder: where its files are; those of the run that goes on stay.
        iteration: the iteration that the run goes on from; what was written after it is not shown any more.

    Raises:
        MissingBoardError: if the package is not there.
    """

    def __init__(self, folder: Path, iteration: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingBoardError(
                f"tensorboard: the package cannot be imported ({error}); pip install tensorboard, or go without "
                "--tensorboard"
            ) from error
        self._writer = SummaryWriter(str(folder), purge_step=iteration + 1)

    def log(self, line: dict[str, Any]) -> None:
        """Write the numbers of a line of the log."""
        for name, value in line.items():
            # The norms of layers are a dictionary, and the norm of a gradient that overflowed is None.
            parts = {f"{name}/{part}": number for part, number in value.items()} if isinstance(value, dict) else {}
            for label, number in (parts or {name: value}).items():
                if number is not None and label != "iteration":
                    self._writer.add_scalar(label, number, line["iteration"])
        self._writer.flush()

    def draw(self, sheet: Image.Image, iteration: int) -> None:
        """Write a sheet of samples."""
        self._writer.add_image("samples", np.atleast_3d(np.asarray(sheet)), iteration, dataformats="HWC")
        self._writer.flush()
