"""Both networks with their optimisers, one update of them, and all that has to be kept to go on later."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from dcgan.average import follow
from dcgan.configuration import Configuration
from dcgan.losses import make_loss
from dcgan.networks import make_discriminator, make_generator
from dcgan.penalty import penalised
from dcgan.precision import Learner, autocast
from dcgan.processes import ALONE, Group
from torch_mmd_losses import ScaledMMDLoss, gradient_penalty
from torch_mmd_losses.results import Losses

State = dict[str, Any]

BETAS = (0.5, 0.999)
"""The paper's, of Adam. TensorFlow's adds epsilon, 1e-8 too, before the correction of the bias, and not after it."""


class Step(NamedTuple):
    """What one update saw: detached tensors, so that nobody waits for a GPU who does not read them."""

    loss_discriminator: Tensor
    loss_generator: Tensor
    real: Tensor
    """Scores of the real images, `(n, d)`."""
    fake: Tensor
    """Scores of the generated images, `(n, d)`."""


class GAN:
    """A generator and a discriminator in training, and a moving average of the generator, which draws the samples.

    Args:
        configuration: the resolved configuration.
        group: the processes that train together.
    """

    def __init__(self, configuration: Configuration, group: Group = ALONE) -> None:
        assert configuration.scores is not None  # as in every resolved configuration
        assert configuration.scale is not None
        self.configuration = configuration
        self.group = group
        self.device = group.device(configuration.device or "cpu")
        shape = {"channels": configuration.channels, "width": configuration.width}
        # Made on the CPU, so that a seed gives the same weights on all devices.
        self.generator = make_generator(configuration.size, noise=configuration.noise, **shape).to(self.device)
        self.discriminator = make_discriminator(
            configuration.size,
            scores=configuration.scores,
            method=configuration.normalisation or "none",
            scale=configuration.scale,
            **shape,
        ).to(self.device)
        self._layout = torch.channels_last if configuration.channels_last else torch.contiguous_format
        for network in (self.generator, self.discriminator):
            network.to(memory_format=self._layout)  # type: ignore[call-overload]
        self.averaged = copy.deepcopy(self.generator).requires_grad_(False).eval()
        self._joint = configuration.across == "global"
        self.loss = make_loss(configuration.loss, lambda_=configuration.lambda_, joint=self._joint)
        self.adam_d = torch.optim.Adam(self.discriminator.parameters(), configuration.lr_discriminator, BETAS)
        self.adam_g = torch.optim.Adam(self.generator.parameters(), configuration.lr_generator, BETAS)
        self.learner_d = Learner(self.adam_d, configuration.precision, self.device)
        self.learner_g = Learner(self.adam_g, configuration.precision, self.device)
        # Only calls go through these, so that checkpoints name what they always do.
        self._shared_d, self._shared_g = (
            group.share(_compiled(network) if configuration.compile else network)
            for network in (self.discriminator, self.generator)
        )
        self.randomness = torch.Generator(self.device).manual_seed(configuration.seed)
        self.iteration = 0

    def step(self, real: Tensor) -> Step:
        """Update both networks once, with this process's real images `(n, channels, size, size)` in [-1, 1]."""
        update = self._simultaneous if self.configuration.updates == "simultaneous" else self._alternating
        step = update(real)
        self.iteration += 1
        self._average()
        return step

    def noise(self, count: int) -> Tensor:
        """Draw standard normal noise `(count, dimension)`."""
        return torch.randn(count, self.configuration.noise, generator=self.randomness, device=self.device)

    @torch.no_grad()
    def sample(self, noise: Tensor) -> Tensor:
        """Return images `(n, channels, size, size)` of noise `(n, dimension)`, by the averaged generator."""
        return torch.cat([self.averaged(part) for part in noise.to(self.device).split(256)])

    def _simultaneous(self, real: Tensor) -> Step:
        """Update both networks from one forward: the generator's gradient is that of the discriminator before."""
        losses, real_scores, fake_scores = self._play(real, self._generate(len(real)))
        self.learner_d.differentiate(losses.discriminator, retain_graph=True)
        self.learner_g.differentiate(losses.generator)
        self.learner_d.update()
        self.learner_g.update()
        return _detached(*losses, real_scores, fake_scores)

    def _alternating(self, real: Tensor) -> Step:
        """Update the discriminator, then the generator from new noise and the discriminator as it is then."""
        with torch.no_grad():
            fake = self._generate(len(real))
        losses, real_scores, fake_scores = self._play(real, fake)
        self.learner_d.differentiate(losses.discriminator)
        self.learner_d.update()
        of_generator = self._play(real, self._generate(len(real)))[0].generator
        self.learner_g.differentiate(of_generator)
        self.learner_g.update()
        return _detached(losses.discriminator, of_generator, real_scores, fake_scores)

    def _generate(self, count: int) -> Tensor:
        """Return images of this process's share of new noise, in training."""
        joint = count * self.group.count
        noise = self.noise(joint)[self.group.rows(joint)]
        with autocast(self.configuration.precision, self.device):
            return self._shared_g(noise)

    def _play(self, real: Tensor, fake: Tensor) -> tuple[Losses, Tensor, Tensor]:
        """Return both losses, and the scores of real and generated images, from one forward of the discriminator."""
        weight = self.configuration.gradient_penalty
        if weight or isinstance(self.loss, ScaledMMDLoss):
            real = real.detach().requires_grad_()
        images = torch.cat([real, fake]).contiguous(memory_format=self._layout)
        with autocast(self.configuration.precision, self.device):
            real_scores, fake_scores = self._shared_d(images).chunk(2)
        if isinstance(self.loss, ScaledMMDLoss):
            losses = self.loss.both(real=real_scores, fake=fake_scores, inputs=real)
        else:
            losses = self.loss.both(real=real_scores, fake=fake_scores)
        if weight:
            steepness = gradient_penalty(real_scores, real, target=0.0)
            if self._joint:
                steepness = self.group.joint_mean(steepness)
            losses = losses._replace(discriminator=penalised(losses.discriminator, steepness, weight))
        return losses, real_scores, fake_scores

    def _average(self) -> None:
        decay = self.configuration.ema_decay
        follow(self.averaged, self.generator, decay=decay, iteration=self.iteration)

    def state_dict(self) -> State:
        """Return all that decides how the training goes on, but the images to come."""
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        return parts | {"iteration": self.iteration, "noise": self.randomness.get_state()}

    def load_state_dict(self, state: State) -> None:
        """Go back to a state that :meth:`state_dict` returned, but with the configuration's learning rates.

        Raises:
            KeyError: if a part is missing.
            RuntimeError: if a network has another shape.
            ValueError: if an optimiser has other parameters.
        """
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        for adam, rate in (
            (self.adam_d, self.configuration.lr_discriminator),
            (self.adam_g, self.configuration.lr_generator),
        ):
            for group in adam.param_groups:
                group["lr"] = rate
        self.randomness.set_state(state["noise"])
        self.iteration = state["iteration"]

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer | torch.amp.GradScaler]:
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "averaged": self.averaged,
            "adam_discriminator": self.adam_d,
            "adam_generator": self.adam_g,
            "scale_discriminator": self.learner_d.scaler,
            "scale_generator": self.learner_g.scaler,
        }


def gradient_norm(network: nn.Module) -> Tensor:
    """Return the norm of the gradient by which a network was updated last."""
    return torch.nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])


def _compiled(network: nn.Module) -> nn.Module:
    return cast(nn.Module, torch.compile(network, dynamic=False))


def _detached(*tensors: Tensor) -> Step:
    return Step(*(tensor.detach() for tensor in tensors))
