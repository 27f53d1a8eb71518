"""Losses of scores with penalties on the critic: WGAN-GP, MMD-GAN-GP and MMD-GAN-GP-L2."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from smmd.loss import Loss, score
from smmd.residual import ResidualBlock
from torch_mmd_losses import Kernel, gradient_penalty, interpolation_points, l2_penalty, witness

_Critic = Callable[[Tensor, Tensor], Tensor]


class PenalisedLoss(Loss):
    """A loss of scores, of which the critic's has penalties added.

    The gradient penalty is taken at random points between real and generated images: on the critic, or with a kernel
    on the witness function. The L2 penalty is on the outputs of all activations and residual blocks and on the
    scores, as the paper and the authors' code have it, each with the mean over all its entries.

    Args:
        critic: the critic's loss of real and fake scores.
        generator: the generator's.
        gradient: weight of the gradient penalty.
        l2: weight of the L2 penalty.
        kernel: the kernel of the witness function.
    """

    def __init__(
        self, critic: _Critic, generator: _Critic, *, gradient: float, l2: float, kernel: Kernel | None = None
    ) -> None:
        super().__init__()
        self._critic = critic
        self._generator = generator
        self.gradient = gradient
        self.l2 = l2
        self.kernel = kernel

    def critic_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the critic's loss with its penalties. Real and generated images have to be equally many."""
        points = interpolation_points(real, fake)
        counts = [len(real), len(fake), len(points)]
        # One forward for all, so that a power iteration advances once.
        outputs = activations(critic, torch.cat([real, fake, points]))
        real_scores, fake_scores, point_scores = outputs[-1].split(counts)
        loss = self._critic(real_scores, fake_scores)
        if self.gradient:
            values = point_scores
            if self.kernel is not None:
                values = witness(point_scores, real_scores, fake_scores, self.kernel)
            loss = loss + self.gradient * gradient_penalty(values, inputs=points)
        if self.l2:
            parts = [part for output in outputs for part in output.split(counts)[:2]]
            loss = loss + self.l2 * l2_penalty(*parts)
        return loss

    def generator_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the generator's loss, which has no penalty."""
        return self._generator(*score(critic, real, fake))


def activations(critic: nn.Module, images: Tensor) -> list[Tensor]:
    """Return the outputs of all activations and residual blocks among the layers of a critic, and the scores."""
    outputs = []
    x = images
    for layer in critic.children():
        x = layer(x)
        if isinstance(layer, nn.LeakyReLU | ResidualBlock):
            outputs.append(x)
    return [*outputs, x]
