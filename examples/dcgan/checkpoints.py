"""Checkpoints of a run: complete or not there, the newest two and milestones kept, and refused if they do not fit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from dcgan.atomic import PARTIAL, replacing
from dcgan.reading import DamagedFileError, read_tensors

KEPT = 2
"""How many checkpoints stay: the newest, and the one before in case that is damaged."""

FORMAT = "torch-mmd-losses dcgan checkpoint 1"
"""Says what a file is; the number rises when older files can no longer be read."""

_NAME = "iteration-{:08d}.pt"
_PATTERN = re.compile(r"iteration-(\d{8,})\.pt")

State = dict[str, Any]
"""Tensors, numbers, strings, and lists, tuples and dictionaries of them: what loads with `weights_only=True`."""


class CheckpointError(Exception):
    """A file is no checkpoint of these scripts, or not all of one."""


class Checkpoints:
    """The checkpoints in a folder, of which one process at a time may be the writer.

    Args:
        folder: where they are.
        keep_every: checkpoints of multiples of this iteration stay besides the newest two.
    """

    def __init__(self, folder: Path, keep_every: int | None = None) -> None:
        self.folder = folder
        self._keep_every = keep_every

    def save(self, iteration: int, state: State) -> Path:
        """Write the state after an iteration, then delete all checkpoints but this one, the one before and milestones.

        Later ones are deleted too: they belong to a run that was abandoned for an earlier checkpoint.
        """
        path = self.folder / _NAME.format(iteration)
        with replacing(path) as partial:
            try:
                torch.save({"format": FORMAT, "iteration": iteration} | state, partial)
            except RuntimeError as error:  # so PyTorch calls it if the disk is full
                raise OSError(next(iter(str(error).splitlines()), "")) from error
        self._tidy(iteration)
        return path

    def paths(self) -> list[Path]:
        """Return the checkpoints that are there, the newest first."""
        named = [path for path in self.folder.glob("*") if _PATTERN.fullmatch(path.name)]
        return sorted(named, key=_iteration, reverse=True)

    def newest(self) -> tuple[State | None, list[str]]:
        """Return the state of the newest checkpoint that can be read, or None, and what was wrong with newer ones."""
        complaints: list[str] = []
        for path in self.paths():
            try:
                return load(path), complaints
            except CheckpointError as error:
                complaints.append(str(error))
        return None, complaints

    def _tidy(self, iteration: int) -> None:
        paths = self.paths()
        earlier = [path for path in paths if _iteration(path) <= iteration]
        kept = earlier[:KEPT]
        if self._keep_every:
            kept += [path for path in earlier[KEPT:] if not _iteration(path) % self._keep_every]
        for path in [*self.folder.glob(f"*{PARTIAL}"), *paths]:
            if path not in kept:
                path.unlink(missing_ok=True)


def load(path: Path) -> State:
    """Return the state in a checkpoint, on the CPU.

    Raises:
        CheckpointError: if it cannot be read, is not one, or holds numbers that are not finite.
    """
    if not path.exists():
        raise CheckpointError(f"There is no checkpoint {path}")
    try:
        state = read_tensors(path)
    except DamagedFileError as error:
        raise CheckpointError(f"{path} cannot be read, it is truncated or no checkpoint: {error}") from error
    if not isinstance(state, dict) or "format" not in state:
        raise CheckpointError(f"{path} is no checkpoint of these scripts")
    if state["format"] != FORMAT:
        raise CheckpointError(f"{path} is a {state['format']!r}; this version reads {FORMAT!r}")
    iteration = state.get("iteration")
    if type(iteration) is not int or iteration < 0:
        raise CheckpointError(f"{path} is damaged: expected an iteration >= 0, got {iteration!r}")
    lost = next(_not_finite(state), None)
    if lost is not None:
        raise CheckpointError(f"{path} cannot be used: numbers in {lost} are not finite")
    return state


def _iteration(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def _not_finite(part: object, name: str = "") -> Iterator[str]:
    """Yield the names of tensors in which a number is infinite or NaN."""
    if isinstance(part, torch.Tensor):
        if not part.isfinite().all():
            yield name.removeprefix(".")
    elif isinstance(part, dict | list | tuple):
        for key, value in part.items() if isinstance(part, dict) else enumerate(part):
            yield from _not_finite(value, f"{name}.{key}")
