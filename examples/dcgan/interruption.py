"""Ctrl-C, and the signal of schedulers before they end a job: noticed between two iterations, not within one."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Context in which the first signal is noted, and a second one acts as it always does.

    Args:
        patient: note a second one too, and do nothing else. A launcher passes on what a scheduler has sent to all
            processes already, and kills those that take too long by itself.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self._patient = patient
        self.signal: int | None = None
        """The signal that came, if one did."""
        usual = {number: signal.getsignal(number) for number in SIGNALS}
        # What whoever started the run has it ignore, as a shell does for jobs in the background, stays ignored.
        self._usual = {number: handler for number, handler in usual.items() if handler is not signal.SIG_IGN}

    def __enter__(self) -> Interruption:
        for number in self._usual:
            signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        if not self._patient:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._usual.items():
            signal.signal(number, handler)
