"""Errors that end a training early. The message is all that the user sees, and `status` is the exit status."""


class RefusedError(Exception):
    """The command cannot be carried out; nothing has been changed."""

    status = 2


class StoppedError(Exception):
    """The training cannot continue, for example because a number is not finite."""

    status = 1


class InterruptedBySignalError(Exception):
    """A signal ended the training, after a checkpoint was saved."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.status = 128 + number
