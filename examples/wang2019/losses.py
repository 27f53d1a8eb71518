"""The losses of Table 1 of Wang et al. (2019), scaled MMD beside them, and the gradient penalty of Appendix D.1."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_mmd_losses import (
    Kernel,
    MMDLoss,
    RationalQuadraticMix,
    RBFBKernel,
    RBFKernel,
    RBFMix,
    ScaledMMDLoss,
)
from torch_mmd_losses.results import Losses

MMD: Mapping[str, tuple[Callable[[], Kernel], float]] = {
    "mmd-rbf": (RBFMix, -1.0),
    "mmd-rq": (RationalQuadraticMix, -1.0),
    "mmd-rbf-b": (RBFBKernel, -1.0),
    "mmd-rep": (RBFKernel, 1.0),
    "mmd-rep-b": (RBFBKernel, 1.0),
}
"""The MMD losses: kernel, and lambda unless chosen otherwise."""


@dataclass(frozen=True)
class SingleScoreLoss:
    """Losses that are means over images of which the discriminator gives one score each."""

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
        lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(),
        lambda real, fake: -fake.mean(),
    ),
    # The authors' code adds the mean of the real scores to the generator's loss, which it does not depend on.
    "wasserstein": SingleScoreLoss(lambda real, fake: fake.mean() - real.mean(), lambda real, fake: -fake.mean()),
}

NAMES = (*SINGLE_SCORE, *MMD, "smmd")
"""All losses there are; `smmd`, of Arbel et al. (2018), needs the real images beside their scores."""


def make_loss(
    name: str, *, lambda_: float | None = None, joint: bool = False
) -> MMDLoss | ScaledMMDLoss | SingleScoreLoss:
    """Return the loss of a name.

    Args:
        name: one of `NAMES`.
        lambda_: weight of the repulsion between real scores (Eq. 5) of an MMD loss; None is what the name stands for.
        joint: whether an MMD loss is that of the joint batch of all processes. The other losses are means over images,
            so that averaged gradients are the joint batch's anyway.
    """
    # Like the authors, and Eq. S2 of the paper, leave out the pairs of a real and a fake image of the same index.
    if name == "smmd":
        return ScaledMMDLoss(estimator="u_statistic", global_batch=joint)
    if name in MMD:
        kernel, usual = MMD[name]
        weight = usual if lambda_ is None else lambda_
        return MMDLoss(kernel(), weight, estimator="u_statistic", global_batch=joint)
    return SINGLE_SCORE[name]


def penalised(loss: Tensor, steepness: Tensor, weight: float) -> Tensor:
    r"""Return the discriminator's loss, divided by what grows with the gradients at the real images.

    .. math:: \frac{L_D - 1}{1 + w \, E \lVert \nabla D(x) \rVert_F^2}

    The numerator is not positive, so that the discriminator lowers the loss and the gradients alike. The formula is
    Arbel et al.'s, without the term for the size of the kernel; the authors use a weight of 0.1, one score per image
    and no spectral normalisation. The steepness is `gradient_penalty(D(x), x, target=0.0)`.
    """
    return (loss - 1) / (1 + weight * steepness)
