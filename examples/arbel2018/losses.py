"""The losses of Arbel et al. (2018). They get the critic itself, since some of them need its gradient at the images.

A loss is a module, because that of the Sobolev GAN has a state. `critic_loss` and `generator_loss` get real images
`(m, ...)` and generated ones `(n, ...)`, which need a gradient for the second only, and return scalars to minimise.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from wang2019.losses import SINGLE_SCORE, SingleScoreLoss

from arbel2018.networks import ResidualBlock
from arbel2018.presets import Arbel2018
from torch_mmd_losses import (
    LinearKernel,
    MMDLoss,
    RBFKernel,
    ScaledMMDLoss,
    gradient_penalty,
    interpolation_points,
    l2_penalty,
    witness,
)

Loss: TypeAlias = "ScoreLoss | ScaledLoss | SobolevLoss"


def make_loss(settings: Arbel2018) -> Loss:
    """Return the loss of resolved settings."""
    kernel = RBFKernel(sigma=settings.sigma)
    weight = settings.scale_weight or float("nan")  # all scaled losses have a weight
    penalties: dict[str, Any] = {"gradient_penalty": settings.gradient_penalty, "l2_penalty": settings.l2_penalty}
    if settings.loss == "gan":  # as in the authors' code
        return ScoreLoss(SINGLE_SCORE["non-saturating"])
    if settings.loss == "wgan":
        return ScoreLoss(SINGLE_SCORE["wasserstein"], **penalties)
    if settings.loss == "mmd":  # Eq. 2
        return ScoreLoss(MMDLoss(kernel, lambda_=-1.0), **penalties)
    if settings.loss == "sobolev":
        return SobolevLoss(settings.sobolev_rho)
    if settings.loss == "smmd":  # MMD^2 / (1 + weight * E |grad D(x)|^2 / sigma^2)
        return ScaledLoss(ScaledMMDLoss(kernel, lambda_=1 / weight))
    if settings.loss == "swgan":  # (E D(x) - E D(y)) / sqrt(1 + weight * (E D(x)^2 + E |grad D(x)|^2))
        return ScaledLoss(ScaledMMDLoss(LinearKernel(), lambda_=1 / weight, squared=False))
    raise ValueError(f"loss: expected one that make_loss in arbel2018/losses.py makes, got {settings.loss}")


def score(critic: nn.Module, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores of real and generated images from one forward pass, which advances power iterations once."""
    real_scores, fake_scores = critic(torch.cat([real, fake])).split([len(real), len(fake)])
    return real_scores, fake_scores


class ScoreLoss(nn.Module):
    """A loss of scores, with an optional gradient penalty and an optional L2 penalty for the critic.

    The gradient is that of the critic or, for an MMD loss, of the witness function, at random points between real
    and generated images, which have to be equally many. The L2 penalty applies to the outputs of all activations and
    residual blocks and to the scores, as in the paper and the authors' code.
    """

    def __init__(
        self, loss: MMDLoss | SingleScoreLoss, *, gradient_penalty: float = 0.0, l2_penalty: float = 0.0
    ) -> None:
        super().__init__()
        self._loss, self._gradient_weight, self._l2_weight = loss, gradient_penalty, l2_penalty

    def critic_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the critic's loss with its penalties, from one forward pass."""
        images = [real, fake]
        if self._gradient_weight:
            images.append(interpolation_points(real, fake))
        counts = [len(part) for part in images]
        outputs = activations(critic, torch.cat(images))
        real_scores, fake_scores, *values = outputs[-1].split(counts)
        loss = self._loss.discriminator(real_scores, fake_scores)
        if self._gradient_weight:
            if isinstance(self._loss, MMDLoss):
                values = [witness(values[0], real_scores, fake_scores, self._loss.kernel)]
            loss = loss + self._gradient_weight * gradient_penalty(values[0], inputs=images[2])
        if self._l2_weight:
            parts = [part for output in outputs for part in output.split(counts)[:2]]
            loss = loss + self._l2_weight * l2_penalty(*parts)
        return loss

    def generator_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the generator's loss, for which only an MMD loss needs the scores of real images."""
        return self._loss.generator(*score(critic, real if isinstance(self._loss, MMDLoss) else real[:0], fake))


def activations(critic: nn.Module, images: Tensor) -> list[Tensor]:
    """Return the outputs of all activations and residual blocks among the layers of a critic, and the scores."""
    outputs, x = [], images
    for layer in critic.children():
        x = layer(x)
        if isinstance(layer, nn.LeakyReLU | ResidualBlock):
            outputs.append(x)
    return [*outputs, x]


class ScaledLoss(nn.Module):
    """A scaled MMD for both networks; the scale contains the critic's gradient at the real images."""

    def __init__(self, scaled: ScaledMMDLoss) -> None:
        super().__init__()
        self.scaled = scaled

    def critic_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the negative scaled MMD."""
        inputs = real.detach().requires_grad_()
        return self.scaled.discriminator(*score(critic, inputs, fake), inputs=inputs)

    def generator_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the scaled MMD."""
        inputs = real.detach().requires_grad_()
        return self.scaled.generator(*score(critic, inputs, fake), inputs=inputs)


class SobolevLoss(nn.Module):
    r"""The Sobolev GAN (Mroueh et al., 2018), with which the paper compares.

    With :math:`\Omega = E_\mu \lVert \nabla D \rVert^2`, the critic lowers the augmented Lagrangian

    .. math:: E\,D(y) - E\,D(x) + \ell (\Omega - 1) + \tfrac{\rho}{2} (\Omega - 1)^2

    plus a small multiple of its squared parameters. The multiplier :math:`\ell` starts at 0 and grows by
    :math:`\rho (\Omega - 1)` in each step of the critic. As in the paper, :math:`\mu` is the data. The `decays` are the
    weights of the squared parameters of the critic, and of its last child module, as in the authors' code; the paper
    has none.
    """

    multiplier: Tensor

    def __init__(self, rho: float, *, decays: tuple[float, float] = (1e-6, 1e-3)) -> None:
        super().__init__()
        self.rho, self.decays = rho, decays
        self.register_buffer("multiplier", torch.zeros(()))

    def critic_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the augmented Lagrangian; in training mode, also update the multiplier."""
        real = real.detach().requires_grad_()
        real_scores, fake_scores = score(critic, real, fake.detach())
        constraint = gradient_penalty(real_scores, real, target=0.0) - 1
        loss = fake_scores.mean() - real_scores.mean()
        loss = loss + self.multiplier * constraint + self.rho / 2 * constraint.square()
        if self.training:
            # Not in place, since the backward pass still needs the multiplier of this step.
            self.multiplier = self.multiplier + self.rho * constraint.detach()
        *_, last = critic.children()
        of_last = set(last.parameters())
        squares = [self.decays[p in of_last] * p.square().sum() for p in critic.parameters()]
        return loss + torch.stack(squares).sum()

    def generator_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return `-E D(y)`."""
        return -critic(fake).mean()
