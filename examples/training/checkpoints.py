"""The checkpoints of a run: named by iteration, refused if damaged, deleted except the newest two and milestones."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from training.errors import RefusedError

State = dict[str, Any]
"""The content of a checkpoint. It loads with `weights_only=True`: tensors, numbers, strings, and containers of them."""


def path_of(folder: Path, iteration: int) -> Path:
    return folder / f"iteration-{iteration:08d}.pt"


def iteration_of(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"iteration-{'[0-9]' * 8}.pt"), reverse=True)


def read(path: Path) -> State:
    """Return a checkpoint, on the CPU; raise `RefusedError` if it is missing or damaged or has a non-finite number."""
    state = read_tensors(path)
    kinds = {"paper": str, "configuration": dict, "iteration": int}
    known = isinstance(state, dict) and all(isinstance(state.get(name), kind) for name, kind in kinds.items())
    if not known or state["iteration"] < 0:
        raise RefusedError(f"{path} is not a checkpoint of these scripts")
    if lost := not_finite(state):
        raise RefusedError(f"{path} cannot be used: numbers in {lost} are not finite")
    return state


def read_tensors(path: Path) -> Any:  # noqa: ANN401
    """Return the content of a file of `torch.save`, on the CPU; raise `RefusedError` if it is missing or damaged.

    `torch.load` does not verify the checksums in a file: it would load a flipped bit as another number.
    """
    if not path.is_file():
        raise RefusedError(f"There is no {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise ValueError(f"{damaged} does not match its checksum")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage can cause any error
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise RefusedError(f"{path} cannot be read: it is damaged or of another kind: {reason}") from error


def tidy(folder: Path, iteration: int, keep_every: int | None) -> None:
    """Delete all checkpoints except the newest two up to an iteration and the multiples of `keep_every`.

    The older of the two is there in case the newer one is damaged. Checkpoints of later iterations belong to a run that
    was abandoned when an earlier checkpoint was resumed.
    """
    paths = newest_first(folder)
    earlier = [path for path in paths if iteration_of(path) <= iteration]
    milestones = [path for path in earlier if keep_every and iteration_of(path) % keep_every == 0]
    for path in paths:
        if path not in earlier[:2] + milestones:
            path.unlink(missing_ok=True)


def not_finite(part: object, name: str = "") -> str:
    """Return the name of a tensor that has an infinite or NaN value, or an empty string if there is none."""
    if isinstance(part, torch.Tensor):
        return "" if part.isfinite().all() else name.removeprefix(".")
    if isinstance(part, dict | list | tuple):
        items = part.items() if isinstance(part, dict) else enumerate(part)
        return next(filter(None, (not_finite(value, f"{name}.{key}") for key, value in items)), "")
    return ""
