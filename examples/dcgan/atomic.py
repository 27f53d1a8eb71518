"""Files that are there in full or not at all, whenever the process or the machine stops."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"
"""How the names of unfinished files end. A process that was killed leaves one."""


class NotWrittenError(OSError):
    """A file cannot be written; the message names the file, which the system's does not always."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a new file that takes the place of `path` when it is complete and on the disk.

    The folder is made. If the block raises, `path` stays as it was and the new file is deleted.

    Raises:
        NotWrittenError: if the system refuses to write.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            _to_disk(partial)
            os.replace(partial, path)
            _to_disk(path.parent)
        finally:
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file of text in UTF-8, as :func:`replacing` does."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def append_text(path: Path, text: str) -> None:
    """Append to a file of text in UTF-8.

    Raises:
        NotWrittenError: if the system refuses to write.
    """
    with naming(path), path.open("a", encoding="utf-8") as file:
        file.write(text)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn an `OSError` into a :class:`NotWrittenError` with the name of a file."""
    try:
        yield
    except NotWrittenError:
        raise
    except OSError as error:
        raise NotWrittenError(f"{path} cannot be written: {error}") from error


def _to_disk(path: Path) -> None:
    if path.is_dir() and os.name != "posix":
        return  # only there can a folder be opened
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
