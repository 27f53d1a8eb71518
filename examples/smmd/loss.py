"""What a loss has to have to be trained with: it sees the critic itself, of which some losses need the gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Loss(nn.Module, ABC):
    """The losses of a critic and of a generator, both to be minimised.

    A loss is a module because it may have a state, which a checkpoint has to hold.
    """

    @abstractmethod
    def critic_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the critic's loss, a scalar, for one update of the critic.

        Args:
            critic: maps images to scores `(n, d)`.
            real: real images `(m, ...)`.
            fake: generated images `(n, ...)`, which need no gradient.
        """

    @abstractmethod
    def generator_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the generator's loss, a scalar that depends on the generator through `fake` only.

        Arguments are those of :meth:`critic_loss`.
        """


def score(critic: nn.Module, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores of real and of generated images from one forward, so that a power iteration advances once."""
    real_scores, fake_scores = critic(torch.cat([real, fake])).split([len(real), len(fake)])
    return real_scores, fake_scores
