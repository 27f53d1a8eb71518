"""Locks on folders that end with the processes that hold them, however these end."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dcgan.atomic import naming

OWNER = "training.lock"
"""The file in the folder of a run whose lock a training holds. That of a sweep is another one."""


class InUseError(Exception):
    """Another process has the lock."""


@contextmanager
def locked(path: Path) -> Iterator[int | None]:
    """Hold the lock of a file, which is made if need be, and yield its descriptor; None if somebody else has it.

    A process that inherits the descriptor holds the lock too, until it ends: the training of a sweep that was killed
    keeps others away from its folder.

    Raises:
        NotWrittenError: if the file cannot be made.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield descriptor if _try(descriptor, fcntl.LOCK_EX) else None
    finally:
        os.close(descriptor)


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Hold the lock of the folder of a run, which is made if need be, and removed again if nothing is left in it.

    Raises:
        InUseError: if another process has the lock.
        NotWrittenError: if the folder cannot be made.
    """
    path = folder / OWNER
    with locked(path) as lock:
        # Somebody who left nothing may have removed the file before it was locked here.
        if lock is None or not path.exists() or not os.path.samestat(os.fstat(lock), path.stat()):
            raise InUseError(f"{folder} is in use by another process; wait for its end, or choose another --out")
        try:
            yield
        finally:
            if is_empty(folder):
                path.unlink()
                with suppress(OSError):  # as for the current folder
                    folder.rmdir()


def is_empty(folder: Path) -> bool:
    """Return whether there is nothing in a folder but the lock of the run."""
    return not folder.exists() or all(path.name == OWNER for path in folder.iterdir())


def is_locked(path: Path) -> bool:
    """Return whether somebody has the lock of a file."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        # A shared lock, so that two who ask do not take each other for a holder.
        return not _try(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
