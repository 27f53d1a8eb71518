"""The loss that scaled MMD bounds from below, with the estimator of Proposition 4 (Appendix D.2)."""

from __future__ import annotations

from torch import Tensor, nn

from smmd.loss import Loss
from torch_mmd_losses import RBFKernel, gradient_constrained_mmd2


class GradientConstrainedLoss(Loss):
    """The squared gradient-constrained MMD at the real images as the loss of both networks.

    Args:
        lambda_: weight of the norm in the RKHS, 0.1 in the paper.
        rank: rows of the incomplete Cholesky decomposition; None is exact.
        sigma: bandwidth of the Gaussian kernel of the scores, 1 in the paper.
    """

    def __init__(self, lambda_: float = 0.1, *, rank: int | None = None, sigma: float = 1.0) -> None:
        super().__init__()
        self.lambda_ = lambda_
        self.rank = rank
        self.kernel = RBFKernel(sigma=sigma)

    def critic_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the gradient-constrained MMD with a minus."""
        return -self.generator_loss(critic, real, fake)

    def generator_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the gradient-constrained MMD, the estimate that averages over all pairs."""
        return gradient_constrained_mmd2(real, fake, self.kernel, lambda_=self.lambda_, features=critic, rank=self.rank)
