"""One iteration of Arbel et al. by the update of `arbel2018.train`, in its two parts."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1]))  # for arbel2018, also if a benchmark is run as a script

from arbel2018.losses import make_loss
from arbel2018.networks import make_critic, make_generator
from arbel2018.presets import METHODS as METHODS
from arbel2018.presets import PRESETS as PRESETS
from arbel2018.presets import Arbel2018 as Arbel2018
from arbel2018.presets import resolved
from arbel2018.train import BETAS, update
from training.sampling import MovingAverage


class ArbelStep:
    """Both networks, their optimisers, the loss and the moving average of the generator.

    Args:
        settings: of the networks, of the loss and of the optimisers.
        device: where they are.
    """

    def __init__(self, settings: Arbel2018, device: torch.device) -> None:
        self.settings = chosen = resolved(settings)
        self.device = device
        self.loss = make_loss(chosen).to(device)
        self.generator, self.critic = make_generator(chosen).to(device), make_critic(chosen).to(device)
        self.average = MovingAverage(self.generator, chosen.ema_decay)
        self.adam_d = torch.optim.Adam(self.critic.parameters(), chosen.lr_discriminator, BETAS, foreach=True)
        self.adam_g = torch.optim.Adam(self.generator.parameters(), chosen.lr_generator, BETAS, foreach=True)
        self._fabric = Fabric(accelerator="cpu", devices=1)

    def images(self) -> Tensor:
        """Return a batch of random images in [0, 1]."""
        shape = (self.settings.batch_size, self.settings.channels, self.settings.size, self.settings.size)
        return torch.rand(shape, device=self.device)

    def generate(self) -> Tensor:
        """Return a batch of generated images."""
        return self.generator(torch.rand(self.settings.batch_size, self.settings.noise, device=self.device) * 2 - 1)

    def update_critic(self, real: Tensor) -> None:
        """Update the critic once."""
        with torch.no_grad():
            fake = self.generate()
        loss = self.loss.critic_loss(self.critic, real, fake)
        update(self.adam_d, self.critic, loss, fabric=self._fabric, clip_norm=self.settings.clip_norm)

    def update_generator(self, real: Tensor) -> None:
        """Update the generator, and let the average follow."""
        loss = self.loss.generator_loss(self.critic, real, self.generate())
        update(self.adam_g, self.generator, loss, fabric=self._fabric, clip_norm=self.settings.clip_norm)
        self.average.update_parameters(self.generator)
