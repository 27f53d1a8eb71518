"""The losses that the paper proposes: scaled MMD, and its linear kind, which is a scaled Wasserstein loss."""

from __future__ import annotations

from torch import Tensor, nn

from smmd.loss import Loss, score
from torch_mmd_losses import LinearKernel, RBFKernel, ScaledMMDLoss


class ScaledLoss(Loss):
    """A scaled MMD as the loss of both networks, with the scale from the gradient of the critic at the real images.

    Args:
        scaled: the scaled MMD.
    """

    def __init__(self, scaled: ScaledMMDLoss) -> None:
        super().__init__()
        self.scaled = scaled

    def critic_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the scaled MMD with a minus."""
        inputs = real.detach().requires_grad_()
        return self.scaled.discriminator(*score(critic, inputs, fake), inputs=inputs)

    def generator_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the scaled MMD."""
        inputs = real.detach().requires_grad_()
        return self.scaled.generator(*score(critic, inputs, fake), inputs=inputs)


def smmd(weight: float, sigma: float = 1.0) -> ScaledLoss:
    """Return `MMD^2 / (1 + weight * E |grad D(x)|^2)`, with a Gaussian kernel (of bandwidth 1; else see its scale)."""
    return ScaledLoss(ScaledMMDLoss(RBFKernel(sigma=sigma), lambda_=1 / weight))


def swgan(weight: float) -> ScaledLoss:
    """Return `(E D(x) - E D(y)) / sqrt(1 + weight * (E D(x)^2 + E |grad D(x)|^2))`."""
    return ScaledLoss(ScaledMMDLoss(LinearKernel(), lambda_=1 / weight, squared=False))
