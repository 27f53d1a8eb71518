"""How a training ends before its end: the message says all that a user has to know, and `status` is the exit status."""


class RefusedError(Exception):
    """The script cannot do what it was asked to, and has changed nothing."""

    status = 2


class UnreadableError(RefusedError, OSError):
    """An image is damaged, which a training finds when it comes to it."""

    status = 1

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition("UnreadableError: ")[2].strip())  # without the traceback of a worker


class StoppedError(Exception):
    """The training broke down."""

    status = 1


class InterruptedBySignalError(Exception):
    """A signal ended the training after a checkpoint was saved."""

    def __init__(self, signal: int, message: str) -> None:
        super().__init__(message)
        self.signal, self.status = signal, 128 + signal
