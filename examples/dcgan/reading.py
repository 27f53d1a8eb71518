"""Files that are read back: an error about a damaged one names the file and the line."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


class DamagedFileError(ValueError):
    """A file does not hold what was written into it."""


def read_json(path: Path, **needed: type) -> dict[str, Any]:
    """Return the object in a file of JSON.

    Args:
        path: the file.
        needed: the entries that it must have, with their types.

    Raises:
        DamagedFileError: if it is not such an object.
    """
    return _parsed(path.read_bytes(), str(path), needed)


def read_lines(path: Path, *, growing: bool = False, **needed: type) -> list[dict[str, Any]]:
    """Return the objects in a file with one line of JSON each.

    Args:
        path: the file.
        growing: omit a last line without its end, which a process that was killed has left.
        needed: the entries that each must have, with their types.

    Raises:
        DamagedFileError: if a line is not such an object.
    """
    lines = path.read_bytes().splitlines(keepends=True)
    if growing and lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    return [_parsed(line, f"{path}, line {number}", needed) for number, line in enumerate(lines, 1)]


def read_tensors(path: Path) -> Any:  # noqa: ANN401
    """Return what `torch.save` wrote, on the CPU.

    `torch.load` does not look at the checksums in the file, so a damaged tensor would be loaded with other numbers.

    Raises:
        DamagedFileError: if it cannot be read, or if a part of it does not match its checksum.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is None:
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage can lead to errors of any kind
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DamagedFileError(reason) from error
    raise DamagedFileError(f"{damaged} does not match its checksum")


def has(content: dict[str, Any], needed: Mapping[str, type]) -> bool:
    """Return whether entries are there, with their types; an integer counts as a `float`, too."""
    kinds = {name: (int, float) if kind is float else kind for name, kind in needed.items()}
    return all(isinstance(content.get(name), kind) for name, kind in kinds.items())


def _parsed(text: bytes, where: str, needed: Mapping[str, type]) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DamagedFileError(f"{where}: expected JSON, got {_short(text)}: {error}") from error
    if not isinstance(content, dict) or not has(content, needed):
        entries = ", ".join(f"{name} ({kind.__name__})" for name, kind in needed.items())
        raise DamagedFileError(f"{where}: expected an object with {entries or 'entries'}, got {_short(text)}")
    return content


def _short(text: bytes) -> str:
    shown = text.decode(errors="replace").strip()
    return repr(shown if len(shown) <= 60 else f"{shown[:60]}...")
