"""Both networks with their optimisers, the updates of one iteration, and all that has to be kept to go on later."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from dcgan.average import follow
from dcgan.processes import ALONE, Group
from kid_schedule import KIDSchedule, Outcome
from torch import Tensor, nn

from smmd.configuration import Configuration
from smmd.judge import Judge
from smmd.loss import Loss
from smmd.losses import make_loss
from smmd.networks import make_critic, make_generator

State = dict[str, Any]

BETAS = (0.5, 0.9)
"""The paper's, of Adam."""

START, REPEAT = 20, 500
"""Iterations at the start, and from one time to the next, in which the critic may be updated more often."""


class Step(NamedTuple):
    """What one iteration saw: detached scalars, so that nobody waits for a GPU who does not read them."""

    loss_discriminator: Tensor
    """The critic's loss before its last update."""
    loss_generator: Tensor


class GAN:
    """A generator and a critic in training, and a moving average of the generator, which draws the samples.

    Args:
        configuration: the resolved configuration.
        loss: what is optimised; by default the configuration's.
        group: the processes that train together. Each has a batch of its own, and the gradients are averaged: of an
            MMD loss that gives the block estimator, the mean over the batches.
        judge: looks at the generator now and then, and lowers the learning rates; none by default.

    Raises:
        ValueError: if the configuration's loss is not there.
    """

    def __init__(
        self,
        configuration: Configuration,
        loss: Loss | None = None,
        *,
        group: Group = ALONE,
        judge: Judge | None = None,
    ) -> None:
        self.configuration = configuration
        self.group = group
        self.device = group.device(configuration.device or "cpu")
        self.loss = (loss or make_loss(configuration)).to(self.device)
        family, size = configuration.family, configuration.size
        shape = {"channels": configuration.channels, "width": configuration.width}
        # Made on the CPU, so that a seed gives the same weights on all devices.
        self.generator = make_generator(family, size, noise=configuration.noise, **shape).to(self.device)
        self.discriminator = make_critic(
            family,
            size,
            scores=configuration.scores,
            normalisation=configuration.normalisation,
            learned_gamma=configuration.gamma == "learned",
            **shape,
        ).to(self.device)
        self.averaged = copy.deepcopy(self.generator).requires_grad_(False).eval()
        self.adam_d = torch.optim.Adam(self.discriminator.parameters(), configuration.lr_discriminator, BETAS)
        self.adam_g = torch.optim.Adam(self.generator.parameters(), configuration.lr_generator, BETAS)
        self.judge = judge
        self.schedule: KIDSchedule | None = None
        if judge is not None:
            real = group.mean(judge.real)
            self.schedule = _schedule(configuration, [self.adam_d, self.adam_g], real)
        self.outcome: Outcome | None = None
        """What the last test came to in this process."""
        self.randomness = torch.Generator(self.device).manual_seed(configuration.seed)
        self.iteration = 0

    def critic_steps(self) -> int:
        """Return how often the critic is updated in the next iteration."""
        more = self.iteration < START or self.iteration % REPEAT == 0
        chosen = self.configuration
        return (chosen.critic_steps_at_start if more else None) or chosen.critic_steps

    def step(self, real: Callable[[], Tensor]) -> Step:
        """Update the critic as often as it is due, each time on new images, then the generator once on others.

        Args:
            real: returns the next batch of real images `(n, channels, size, size)` in [0, 1] on the device; it is
                called once more than the critic is updated.
        """
        for _ in range(self.critic_steps()):
            loss_critic = self._update_critic(real())
        loss_generator = self._update_generator(real())
        self.iteration += 1
        self._average()
        if self.judge is not None and self.schedule is not None and self.schedule.due(self.iteration):
            fake = self.judge.features(self.sample(self.noise(len(self.judge.real))))
            # The mean, since all processes have to come to the same, to the last bit.
            self.outcome = self.schedule.step(self.group.mean(fake))
        return Step(loss_critic.detach(), loss_generator.detach())

    def noise(self, count: int) -> Tensor:
        """Draw noise `(count, dimension)`, uniform between -1 and 1."""
        shape = (count, self.configuration.noise)
        return torch.rand(shape, generator=self.randomness, device=self.device) * 2 - 1

    @torch.no_grad()
    def sample(self, noise: Tensor) -> Tensor:
        """Return images `(n, channels, size, size)` of noise `(n, dimension)`, by the averaged generator.

        They are in [-1, 1], as all that shows or measures samples takes them.
        """
        return torch.cat([self.averaged(part) for part in noise.to(self.device).split(256)]) * 2 - 1

    def _update_critic(self, real: Tensor) -> Tensor:
        with torch.no_grad():
            fake = self._generate(len(real))
        loss = self.loss.critic_loss(self.discriminator, real, fake)
        self._update(self.adam_d, self.discriminator, loss)
        for buffer in self.loss.buffers():
            buffer.copy_(self.group.mean(buffer))
        return loss

    def _update_generator(self, real: Tensor) -> Tensor:
        loss = self.loss.generator_loss(self.discriminator, real, self._generate(len(real)))
        self._update(self.adam_g, self.generator, loss)
        return loss

    def _generate(self, count: int) -> Tensor:
        """Return images of this process's share of new noise."""
        joint = count * self.group.count
        return self.generator(self.noise(joint)[self.group.rows(joint)])

    def _update(self, adam: torch.optim.Optimizer, network: nn.Module, loss: Tensor) -> None:
        parameters = list(network.parameters())
        means = [self.group.mean(gradient) for gradient in torch.autograd.grad(loss, parameters)]
        gradients = clipped(means, self.configuration.clip_norm)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        adam.step()

    def _average(self) -> None:
        decay = self.configuration.ema_decay
        follow(self.averaged, self.generator, decay=decay, iteration=self.iteration, buffer=self.group.mean)

    def state_dict(self) -> State:
        """Return all that decides how the training goes on, but the images to come."""
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        return parts | {"iteration": self.iteration, "noise": self.randomness.get_state()}

    def load_state_dict(self, state: State) -> None:
        """Go back to a state that :meth:`state_dict` returned, with its learning rates, which may have fallen.

        Raises:
            KeyError: if a part is missing.
            RuntimeError: if a network or the loss has another shape.
            ValueError: if an optimiser has other parameters.
        """
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.randomness.set_state(state["noise"])
        self.iteration = state["iteration"]

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer | KIDSchedule]:
        parts: dict[str, nn.Module | torch.optim.Optimizer | KIDSchedule] = {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "averaged": self.averaged,
            "adam_discriminator": self.adam_d,
            "adam_generator": self.adam_g,
            "loss": self.loss,
        }
        return parts if self.schedule is None else parts | {"kid_schedule": self.schedule}


def _schedule(chosen: Configuration, optimisers: list[torch.optim.Optimizer], real: Tensor) -> KIDSchedule:
    return KIDSchedule(
        optimisers,
        real,
        every=chosen.kid_every,
        memory=chosen.kid_back // chosen.kid_every,
        patience=chosen.kid_failures,
        factor=chosen.lr_factor,
        floor=chosen.lr_least,
    )


def clipped(gradients: Sequence[Tensor], limit: float) -> Sequence[Tensor]:
    """Return gradients of which each has at most the norm `limit`, by itself, or any norm if that is 0.

    The paper does not mention it; it is in the authors' code.
    """
    if not limit:
        return gradients
    return [gradient * (limit / torch.linalg.vector_norm(gradient).clamp(min=limit)) for gradient in gradients]
