"""The checkpoints of a run: complete or not there, the newest two and milestones kept, and refused if damaged."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from training.errors import RefusedError
from training.files import read_tensors, replacing

State = dict[str, Any]
"""What loads with `weights_only=True`: tensors, numbers, strings, and containers of them."""


def path_of(folder: Path, iteration: int) -> Path:
    """Return where the checkpoint of an iteration is."""
    return folder / f"iteration-{iteration:08d}.pt"


def iteration_of(path: Path) -> int:
    """Return the iteration in the name of a checkpoint."""
    return int(path.stem.rpartition("-")[2])


def newest_first(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder."""
    found = (path for path in folder.glob("iteration-*.pt") if re.fullmatch(r"iteration-\d{8,}", path.stem))
    return sorted(found, key=iteration_of, reverse=True)


def read(path: Path) -> State:
    """Return a checkpoint, on the CPU; `RefusedError` if it is not there or damaged, or if a number is not finite."""
    state = read_tensors(path)
    if not isinstance(state, dict) or not {"paper", "configuration", "iteration"} <= state.keys():
        raise RefusedError(f"{path} is no checkpoint of these scripts")
    if type(state["iteration"]) is not int or state["iteration"] < 0:
        raise RefusedError(f"{path} is damaged: expected an iteration >= 0, got {state['iteration']!r}")
    if lost := not_finite(state):
        raise RefusedError(f"{path} cannot be used: numbers in {lost} are not finite")
    return state


def write(path: Path, state: State) -> None:
    """Write a checkpoint that is complete or not there."""
    with replacing(path) as partial:
        torch.save(state, partial)


def tidy(folder: Path, iteration: int, keep_every: int | None) -> None:
    """Delete all checkpoints but the newest two up to an iteration and the multiples of `keep_every`.

    The second is for the case that the newest is damaged. Later ones are of a run that was abandoned for an earlier
    checkpoint.
    """
    paths = newest_first(folder)
    earlier = [path for path in paths if iteration_of(path) <= iteration]
    milestones = [path for path in earlier if keep_every and iteration_of(path) % keep_every == 0]
    for path in paths:
        if path not in earlier[:2] + milestones:
            path.unlink(missing_ok=True)


def not_finite(part: object, name: str = "") -> str:
    """Return the name of a tensor in which a number is infinite or NaN, or an empty string if there is none."""
    if isinstance(part, torch.Tensor):
        return "" if part.isfinite().all() else name.removeprefix(".")
    if isinstance(part, dict | list | tuple):
        items = part.items() if isinstance(part, dict) else enumerate(part)
        return next(filter(None, (not_finite(value, f"{name}.{key}") for key, value in items)), "")
    return ""
