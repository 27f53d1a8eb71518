"""Atomic writes, and reading of files with errors that name the damaged file and line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from training.errors import RefusedError

Line = dict[str, Any]

PARTIAL = ".partial"  # suffix of a file that is being written


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file to write; once complete, it replaces `path`."""
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    with _named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_lines(path: Path, lines: list[Line]) -> None:
    """Write a file of JSON lines atomically."""
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def append_line(path: Path, line: Line) -> None:
    with _named(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def read_json(path: Path, **needed: type) -> Line:
    """Return the object in a JSON file; `needed` has the types of its required entries."""
    return _parsed(path.read_bytes(), str(path), needed)


def read_lines(path: Path, *, growing: bool = False, **needed: type) -> list[Line]:
    """Return the objects of a file of JSON lines, or none if there is no file.

    `needed` has the types of the entries that each object requires. The last line of a `growing` file may be
    incomplete, since the process that wrote it may have been killed; such a line is ignored.
    """
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    if growing and lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    return [_parsed(line, f"{path}, line {number}", needed) for number, line in enumerate(lines, 1)]


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # PyTorch raises the latter if the disk is full
        reason, *_ = str(error).splitlines() or [""]
        raise OSError(f"{path} cannot be written: {reason}") from error


def _parsed(text: bytes, where: str, needed: dict[str, type]) -> Line:
    shown = text.decode(errors="replace").strip()[:60]
    try:
        content = json.loads(text)
    except ValueError as error:
        raise RefusedError(f"{where}: expected JSON, got {shown!r}: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(name), kind) for name, kind in needed.items()):
        entries = ", ".join(f"{name} ({kind.__name__})" for name, kind in needed.items()) or "entries"
        raise RefusedError(f"{where}: expected an object with {entries}, got {shown!r}")
    return content
