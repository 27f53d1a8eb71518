"""Ctrl-C, and the signal of schedulers before they end a job: noticed between two iterations, not within one."""

from __future__ import annotations

import signal
from types import TracebackType

from dcgan.handlers import Handlers

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Context in which the first signal is noted, and a second one acts as it always does.

    Args:
        patient: note a second one too, and do nothing else. A launcher passes on what a scheduler has sent to all
            processes already, and kills those that take too long by itself.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self._patient = patient
        self._handlers = Handlers(SIGNALS, self._note)
        self.signal: int | None = None
        """The signal that came, if one did."""

    def __enter__(self) -> Interruption:
        self._handlers.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handlers.restore()

    def _note(self, number: int) -> None:
        self.signal = number
        if not self._patient:
            self._handlers.restore()
