"""Locks on folders that end with the processes that hold them, however these end."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[int | None]:
    """Hold the lock of a file, which is made if need be, and yield its descriptor; None if somebody else has it.

    A process that inherits the descriptor holds the lock too, until it ends: the training of a sweep that was killed
    keeps others away from its folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield descriptor if _try(descriptor, fcntl.LOCK_EX) else None
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Return whether somebody has the lock of a file."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
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
