"""The losses of scores alone, and the choice among all losses by a configuration."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from smmd.configuration import Configuration
from smmd.loss import Loss, score
from smmd.penalised import PenalisedLoss
from smmd.scaled import smmd, swgan
from smmd.sobolev import SobolevLoss
from torch_mmd_losses import MMDLoss, RBFKernel


class GANLoss(Loss):
    """The logistic loss of a discriminator `1 / (1 + exp(-score))`; the generator's is the one that does not saturate.

    The paper gives the discriminator; the generator's loss is that of the authors' code.
    """

    def critic_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return `E softplus(-D(x)) + E softplus(D(y))`."""
        real_scores, fake_scores = score(critic, real, fake)
        return F.softplus(-real_scores).mean() + F.softplus(fake_scores).mean()

    def generator_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return `E softplus(-D(y))`."""
        return F.softplus(-critic(fake)).mean()


class WGANLoss(Loss):
    """The difference between the mean scores."""

    def critic_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return `E D(y) - E D(x)`."""
        real_scores, fake_scores = score(critic, real, fake)
        return fake_scores.mean() - real_scores.mean()

    def generator_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return `-E D(y)`."""
        return -critic(fake).mean()


class OptimizedMMDLoss(Loss):
    """The squared MMD with a Gaussian kernel of the scores, which the critic raises and the generator lowers (Eq. 2).

    Args:
        sigma: bandwidth of the kernel, 1 in the paper.
    """

    def __init__(self, sigma: float = 1.0) -> None:
        super().__init__()
        self.mmd = MMDLoss(RBFKernel(sigma=sigma), lambda_=-1.0)

    def critic_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return `-MMD^2`."""
        return self.mmd.discriminator(*score(critic, real, fake))

    def generator_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return `MMD^2`."""
        return self.mmd.generator(*score(critic, real, fake))


def make_loss(configuration: Configuration) -> Loss:
    """Return the loss of a resolved configuration."""
    weight = configuration.scale_weight or 0.0  # which all scaled losses have
    losses: dict[str, Callable[[], Loss]] = {
        "gan": GANLoss,
        "wgan": WGANLoss,
        "mmd": lambda: OptimizedMMDLoss(configuration.sigma),
        "sobolev": lambda: SobolevLoss(configuration.sobolev_rho, measure=configuration.sobolev_measure),
        "smmd": lambda: smmd(weight, configuration.sigma),
        "swgan": lambda: swgan(weight),
    }
    if configuration.gradient_penalty or configuration.l2_penalty:
        return _penalised(configuration)
    return losses[configuration.loss]()


def _penalised(configuration: Configuration) -> Loss:
    make = partial(PenalisedLoss, gradient=configuration.gradient_penalty, l2=configuration.l2_penalty)
    if configuration.loss == "wgan":
        return make(lambda real, fake: fake.mean() - real.mean(), lambda real, fake: -fake.mean())
    mmd = OptimizedMMDLoss(configuration.sigma).mmd
    return make(mmd.discriminator, mmd.generator, kernel=mmd.kernel)
