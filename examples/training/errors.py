"""How a training ends before its end; the message says all that a user has to know."""


class RefusedError(Exception):
    """The script cannot do what it was asked to, and has changed nothing: exit status 2."""


class UnreadableError(RefusedError, OSError):
    """An image is damaged, which a training finds when it comes to it: exit status 1."""


class StoppedError(Exception):
    """The training broke down: exit status 1."""


class InterruptedBySignalError(Exception):
    """A signal ended the training after a checkpoint was saved: exit status 128 and the signal's number."""

    def __init__(self, signal: int, message: str) -> None:
        super().__init__(message)
        self.signal = signal
