"""The processes that a sweep starts: each with its console in a file, and all of them stopped together."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class StoppedError(Exception):
    """The sweep is ending: no process is started any more, and how the last ones ended says nothing about them."""


class Ended(NamedTuple):
    """A process that came to its end."""

    status: int
    """Its exit status, or less than 0 if a signal ended it."""
    output: str
    """What it wrote."""


class Processes:
    """Processes that run now. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._guard = threading.Lock()
        self._stopped = False

    def run(self, command: Sequence[str], console: Path, environment: Mapping[str, str], lock: int) -> Ended:
        """Run a command to its end, and return how it ended.

        Args:
            command: what to run.
            console: file that all its output is appended to.
            environment: variables to set in addition to those there are.
            lock: descriptor of a lock that the process holds too.

        Raises:
            StoppedError: if it was stopped before its end, or not even started.
        """
        with console.open("ab") as file:
            begin = file.tell()
            with self._guard:
                if self._stopped:
                    raise StoppedError
                # In a session of its own, Ctrl-C on the terminal reaches the sweep only, which then decides.
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **environment},
                    pass_fds=(lock,),
                    start_new_session=True,
                )
                self._running.add(process)
            status = process.wait()
            with self._guard:
                self._running.remove(process)
                stopped = self._stopped
        if stopped and status:
            raise StoppedError
        return Ended(status, console.read_bytes()[begin:].decode(errors="replace"))

    def close(self) -> None:
        """Start no more processes. A signal handler may call this: it waits for nobody."""
        self._stopped = True

    def stop(self) -> None:
        """Ask all processes to end, and start no more; a training saves a checkpoint then."""
        self.close()
        with self._guard:
            for process in self._running:
                process.terminate()

    def kill(self) -> None:
        """End all processes at once, with those that they started."""
        self.close()
        with self._guard:
            for process in self._running:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
