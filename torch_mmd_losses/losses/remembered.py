"""The real scores that a loss remembers for the generator's loss."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_mmd_losses.losses import origins

EXAMINED = 16
"""Number of the first discriminator's losses whose networks are remembered too. Later ones cost nothing."""


class Remembered:
    """The detached real scores of the last discriminator's loss, and its scale if the loss has one.

    `state_dict` does not contain the scores. Copies and pickles remember nothing.
    """

    def __init__(self) -> None:
        self.real: Tensor | None = None
        self.scale: Tensor | None = None
        self.networks: list[origins.Network] = []
        self._left = EXAMINED

    def note_network(self, real: Tensor) -> None:
        """Remember which network has computed the real scores, in the first discriminator's losses, if not compiled."""
        if torch.compiler.is_compiling() or not self._left:
            self.networks = []
        else:
            self._left -= 1
            self.networks.append(origins.parameters_of(real))

    def __reduce__(self) -> tuple[type[Remembered], tuple[()]]:
        return Remembered, ()
