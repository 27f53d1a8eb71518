"""Processes that run one part each within its time, and whose records are kept even if they are killed."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from on_gpu.journal import CHANNEL

Record = dict[str, Any]

GRACE = 2.0
"""Seconds from the polite to the final signal for a process to end."""

_DIE_WITH_PARENT = 1


class Stopped(BaseException):
    """The whole run was told to stop, by a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def raise_when_told_to_stop() -> None:
    """Let SIGTERM, SIGINT and SIGHUP raise :class:`Stopped`."""

    def stop(number: int, _: object) -> None:
        ignore_signals()  # the rest takes no time
        raise Stopped(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)


def ignore_signals() -> None:
    """Ignore all later signals except SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def run(
    command: Sequence[str],
    variables: Mapping[str, str],
    seconds: float,
    keep: Callable[[Record], None],
    log: Path,
    folder: Path,
) -> str | None:
    """Run a command, pass on each of its records at once, and return the errors.

    Args:
        command: the words of the command; the first one is a program.
        variables: the environment.
        seconds: after how long to end it, with all that it started.
        keep: takes each record.
        log: a file to which its output is appended.
        folder: where to run it.
    """
    end = time.monotonic() + seconds
    reading, writing = os.pipe()
    begin = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env={**variables, CHANNEL: str(writing)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(writing,),
            start_new_session=True,
            preexec_fn=_in_child,
            cwd=folder,
        )
    os.close(writing)
    try:
        in_time = _pass_on(reading, process, end, keep)
    finally:
        _end(process)
        os.close(reading)
    if not in_time:
        return f"ended after {seconds:.0f} s, its share of the time"
    if process.returncode:
        return f"status {process.returncode}: {_last_words(log, begin)}"
    return None


def _in_child() -> None:
    # The signals that the parent handles end a child again, and it does not outlive a parent that is killed.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def _pass_on(reading: int, process: subprocess.Popen[bytes], end: float, keep: Callable[[Record], None]) -> bool:
    """Pass records on until the process has ended, and return whether it did so in time."""
    rest = b""
    while True:
        has_ended = process.poll() is not None
        ready, _, _ = select.select([reading], [], [], 0 if has_ended else 0.1)
        if ready:
            found = os.read(reading, 2**16)
            *lines, rest = (rest + found).split(b"\n")
            for line in lines:
                keep(json.loads(line))
            if not found:  # it has closed the pipe
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.1, end - time.monotonic()))
                return process.returncode is not None
        elif has_ended:
            return True
        if time.monotonic() > end:
            return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)


def _last_words(log: Path, begin: int) -> str:
    with log.open("rb") as file:
        file.seek(begin)
        text = file.read().decode(errors="replace").strip()
    return text[-1500:] or "no output"
