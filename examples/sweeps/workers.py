"""Runs side by side, one in each place, until all are done or somebody interrupts."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from dcgan.handlers import Handlers

from sweeps.attempt import Attempt, Recipe, Result
from sweeps.devices import Place
from sweeps.plan import Run
from sweeps.processes import Processes, StoppedError

GRACE = 5.0
"""Seconds from a termination to when it is passed on. Schedulers send it to all processes of a job, and a training that
gets it twice has no time to save."""

TICK = 0.1
"""Seconds between two looks at what happens."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class SignalledError(Exception):
    """A signal ended the sweep before its end.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number


class Workers:
    """Does runs, each worker one at a time.

    Args:
        recipe: how runs are done.
        places: where, one for each worker.
        say: is told what happens.
    """

    def __init__(self, recipe: Recipe, places: Sequence[Place], say: Callable[[str], None]) -> None:
        self._recipe, self._places, self._say = recipe, places, say
        self._processes = Processes()
        self._results: Counter[Result] = Counter()
        self._errors: list[Exception] = []
        self._queue: deque[tuple[int, Run, bool]] = deque()
        self._count = 0

    def do(self, runs: Sequence[Run]) -> Counter[Result]:
        """Do the runs in order, and return how many had which result.

        At Ctrl-C or a termination, the trainings save their state; at the second one, they are ended at once.

        Raises:
            SignalledError: if there was a signal.
        """
        self._queue.extend((number, run, False) for number, run in enumerate(runs, 1))
        self._count = len(runs)
        threads = [threading.Thread(target=self._work, args=[place]) for place in self._places[: len(runs)]]
        noted: list[int] = []

        def note(number: int) -> None:
            self._processes.close()
            noted.append(number)

        with Handlers(SIGNALS, note):
            for thread in threads:
                thread.start()
            stop = self._stops(noted)
            while any(thread.is_alive() for thread in threads):
                time.sleep(TICK)
                next(stop)
        if self._errors:
            raise self._errors[0]
        if noted:
            raise SignalledError(noted[0])
        return self._results

    def _stops(self, noted: Sequence[int]) -> Iterator[None]:
        """Do what the signals that were noted ask for, one look at a time."""
        while not noted:
            yield
        self._say("Stopping: runs save their state and can go on later; once more ends them at once")
        passed_on = time.monotonic() + (0 if noted[0] == signal.SIGINT else GRACE)
        while len(noted) == 1 and time.monotonic() < passed_on:
            yield
        self._processes.stop()
        while len(noted) == 1:
            yield
        self._processes.kill()
        while True:
            yield

    def _work(self, place: Place) -> None:
        while self._queue:
            try:
                number, run, again = self._queue.popleft()
            except IndexError:  # another worker was faster
                return
            say = partial(self._tell, f"[{number}/{self._count}] {run.name}")
            try:
                result = Attempt(self._recipe, run, place, self._processes, say)()
            except StoppedError:
                return
            except Exception as error:
                self._errors.append(error)
                self._processes.stop()
                return
            if result is Result.BUSY and not again:
                # When all others are done it may be free: its sweep may have been killed.
                self._queue.append((number, run, True))
            else:
                if result is Result.BUSY:
                    say("is in the hands of another process")
                self._results[result] += 1

    def _tell(self, name: str, message: str) -> None:
        self._say(f"{name}: {message}")
