"""The losses of Table 1 of Wang et al. (2019), scaled MMD, and the gradient penalty of Appendix D.1."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_mmd_losses import Kernel, MMDLoss, RationalQuadraticMix, RBFBKernel, RBFKernel, RBFMix, ScaledMMDLoss
from torch_mmd_losses.results import Losses

MMD: Mapping[str, tuple[Callable[[], Kernel], float]] = {
    "mmd-rbf": (RBFMix, -1.0),
    "mmd-rq": (RationalQuadraticMix, -1.0),
    "mmd-rbf-b": (RBFBKernel, -1.0),
    "mmd-rep": (RBFKernel, 1.0),
    "mmd-rep-b": (RBFBKernel, 1.0),
}
"""The MMD losses: kernel and default lambda."""


@dataclass(frozen=True)
class SingleScoreLoss:
    """Losses that are means over images, for a discriminator with one score per image."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]

    def both(self, real: Tensor, fake: Tensor) -> Losses:
        """Return both losses of scores `(n, 1)`, at least in float32."""
        dtype = torch.promote_types(real.dtype, torch.float32)
        real, fake = real.to(dtype), fake.to(dtype)
        return Losses(self.discriminator(real, fake), self.generator(real, fake))


def _logistic(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(-real).mean() + F.softplus(fake).mean()


SINGLE_SCORE: Mapping[str, SingleScoreLoss] = {
    "minimax": SingleScoreLoss(_logistic, lambda real, fake: -_logistic(real, fake)),
    "non-saturating": SingleScoreLoss(_logistic, lambda real, fake: F.softplus(-fake).mean()),
    "hinge": SingleScoreLoss(
        lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(), lambda real, fake: -fake.mean()
    ),
    # The authors' code adds the mean of the real scores to the generator's loss, which changes no gradient.
    "wasserstein": SingleScoreLoss(lambda real, fake: fake.mean() - real.mean(), lambda real, fake: -fake.mean()),
}

NAMES = (*SINGLE_SCORE, *MMD, "smmd")  # all losses; `smmd`, of Arbel et al. (2018), also needs the real images


def make_loss(
    name: str, *, lambda_: float | None = None, joint: bool = False
) -> MMDLoss | ScaledMMDLoss | SingleScoreLoss:
    """Return the loss with one of the `NAMES`; the lambda of Eq. 5 is for MMD losses.

    `joint` computes an MMD loss on the joint batch of all processes. The other losses are means over images, so that
    the averaged gradients are those of the joint batch anyway.
    """
    # As in the authors' code and in Eq. S2, pairs of a real and a fake image with the same index are left out.
    if name == "smmd":
        return ScaledMMDLoss(estimator="u_statistic", global_batch=joint)
    if name in MMD:
        kernel, usual = MMD[name]
        weight = usual if lambda_ is None else lambda_
        loss = MMDLoss(kernel(), weight, estimator="u_statistic", global_batch=joint)
        if list(loss.parameters()):
            raise ValueError(f"loss: expected a kernel without trained parameters, which no optimiser has; got {name}")
        return loss
    return SINGLE_SCORE[name]


def penalised(loss: Tensor, steepness: Tensor, weight: float) -> Tensor:
    r"""Return the discriminator's loss divided by a factor that grows with its gradient at the real images.

    .. math:: \frac{L_D - 1}{1 + w \, E \lVert \nabla D(x) \rVert_F^2}

    The numerator is not positive, so that the discriminator lowers both its loss and its gradient. The formula is that
    of Arbel et al. without the term for the kernel's values. Wang et al. use it with a weight of 0.1, one score per
    image and no spectral normalisation. The steepness is `gradient_penalty(D(x), x, target=0.0)`.
    """
    return (loss - 1) / (1 + weight * steepness)
