"""The real scores that a loss remembers for the generator's loss."""

from __future__ import annotations

from torch import Tensor


class Remembered:
    """The detached real scores of the last discriminator's loss, and its scale if the loss has one.

    `state_dict` does not contain the scores. Copies and pickles remember nothing.
    """

    def __init__(self) -> None:
        self.real: Tensor | None = None
        self.scale: Tensor | None = None

    def __reduce__(self) -> tuple[type[Remembered], tuple[()]]:
        return Remembered, ()
