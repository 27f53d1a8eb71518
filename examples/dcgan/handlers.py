"""Other handlers for signals, for a while."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from types import FrameType, TracebackType


class Handlers:
    """Context in which signals are handled in another way.

    What whoever started the process has it ignore, as `nohup` does and a shell for jobs in the background, stays
    ignored.

    Args:
        signals: their numbers.
        handle: is called with the number of one that comes.
    """

    def __init__(self, signals: Iterable[int], handle: Callable[[int], None]) -> None:
        self._handle = handle
        usual = {number: signal.getsignal(number) for number in signals}
        self._usual = {number: handler for number, handler in usual.items() if handler is not signal.SIG_IGN}

    def __enter__(self) -> None:
        for number in self._usual:
            signal.signal(number, self._called)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()

    def restore(self) -> None:
        """Handle the signals as before the context."""
        for number, handler in self._usual.items():
            signal.signal(number, handler)

    def _called(self, number: int, frame: FrameType | None) -> None:
        self._handle(number)
