"""The folder of a run: a new one for each, never one that holds something already unless told so."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping
from pathlib import Path

import numpy
import sklearn
import torch
import torchmetrics

import torch_mmd_losses

FILES = ("metrics.jsonl", "summary.json", "samples.png", "curves.png", "samples/step-*.png")
"""What a run leaves behind, and all that another run in the same folder may delete."""


def make_folder(chosen: Path | None, *, default: Path, overwrite: bool = False) -> Path:
    """Make and return the chosen folder; without a choice, the next of `default-001`, `default-002`, ...

    Raises:
        FileExistsError: if the chosen one is a file, or if it holds something and `overwrite` is false.
    """
    folder = _numbered(default) if chosen is None else chosen
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; choose a folder")
    if folder.exists() and any(folder.iterdir()):
        if not overwrite:
            raise FileExistsError(f"{folder} is not empty; choose another folder, or --overwrite to replace its run")
        _delete_run(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _numbered(stem: Path) -> Path:
    suffixes = [path.name.removeprefix(f"{stem.name}-") for path in stem.parent.glob(f"{stem.name}-*")]
    number = max((int(suffix) for suffix in suffixes if suffix.isdecimal()), default=0) + 1
    return stem.with_name(f"{stem.name}-{number:03d}")


def _delete_run(folder: Path) -> None:
    for path in (path for pattern in FILES for path in folder.glob(pattern)):
        path.unlink()


def append_line(path: Path, record: Mapping[str, float]) -> None:
    """Append a record to a file of one JSON object per line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def write_summary(path: Path, summary: Mapping[str, object]) -> None:
    """Write a summary as indented JSON."""
    path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def versions() -> dict[str, str]:
    """Return the versions of all that takes part in a run."""
    modules = (torch_mmd_losses, torch, torchmetrics, sklearn, numpy)
    return {"python": platform.python_version()} | {module.__name__: str(module.__version__) for module in modules}


class Stopwatch:
    """Seconds that the parts of a run took."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._start = time.perf_counter()

    @property
    def total(self) -> float:
        """Seconds since the stopwatch was made."""
        return time.perf_counter() - self._start

    def lap(self, name: str) -> None:
        """Give a name to the time since the last lap."""
        self.laps[name] = self.total - sum(self.laps.values())
