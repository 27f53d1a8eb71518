"""The Sobolev GAN (Mroueh et al., 2018), with which the paper compares."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from smmd.loss import Loss, score

DECAY, DECAY_OF_LAST = 1e-6, 1e-3
"""Weights of the squared parameters of the critic, and of those of its last layer: the code's, the paper has none."""


class SobolevLoss(Loss):
    r"""The difference between the mean scores, with the squared gradient held at 1 in expectation.

    With :math:`\Omega = E_\mu \lVert \nabla D \rVert^2`, the critic lowers the augmented Lagrangian

    .. math:: E\,D(y) - E\,D(x) + \ell (\Omega - 1) + \tfrac{\rho}{2} (\Omega - 1)^2

    and a small multiple of its squared parameters, and :math:`\ell`, which is 0 at first, grows by
    :math:`\rho (\Omega - 1)` in each of its steps. The paper uses the data as :math:`\mu`; the authors' code uses data
    and generated images in equal parts, as Mroueh et al. do.

    Args:
        rho: the weight :math:`\rho`, > 0.
        measure: `"data"` or `"mixture"`.
        decays: weights of the squared parameters of the critic, and of those of its last child module.

    Raises:
        ValueError: if there is no such measure.
    """

    multiplier: Tensor

    def __init__(
        self, rho: float, *, measure: str = "data", decays: tuple[float, float] = (DECAY, DECAY_OF_LAST)
    ) -> None:
        super().__init__()
        if measure not in ("data", "mixture"):
            raise ValueError(f"measure: expected data or mixture, got {measure!r}")
        self.rho = rho
        self.measure = measure
        self.decays = decays
        self.register_buffer("multiplier", torch.zeros(()))

    def critic_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the augmented Lagrangian; in training mode, move the multiplier as a step of the critic does."""
        real, fake = real.detach().requires_grad_(), fake.detach().requires_grad_(self.measure == "mixture")
        scores = score(critic, real, fake)
        constraint = self._squared_gradient(scores, (real, fake)) - 1
        loss = scores[1].mean() - scores[0].mean() + self.multiplier * constraint + self.rho / 2 * constraint.square()
        if self.training:
            # Not in place: the backward pass still needs the multiplier of this step.
            self.multiplier = self.multiplier + self.rho * constraint.detach()
        return loss + self._decay(critic)

    def generator_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return `-E D(y)`."""
        return -critic(fake).mean()

    def _squared_gradient(self, scores: tuple[Tensor, Tensor], images: tuple[Tensor, Tensor]) -> Tensor:
        """Return the mean of the squared norm of the gradient under the measure."""
        inputs = [part for part in images if part.requires_grad]
        total = scores[0].sum() + scores[1].sum()
        gradients = torch.autograd.grad(total, inputs, create_graph=True)
        return torch.stack([part.square().flatten(1).sum(1).mean() for part in gradients]).mean()

    def _decay(self, critic: nn.Module) -> Tensor:
        *first, last = critic.children()
        squares = [
            weight * parameter.square().sum()
            for weight, layers in zip(self.decays, (first, [last]), strict=True)
            for layer in layers
            for parameter in layer.parameters()
        ]
        return torch.stack(squares).sum()
