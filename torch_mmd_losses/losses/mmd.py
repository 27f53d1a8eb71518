"""The losses of MMD GANs."""

from __future__ import annotations

from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.bounded import RBFBKernel
from torch_mmd_losses.losses.batch_loss import BatchLoss
from torch_mmd_losses.pairs.objective import GENERATOR, Objective, Weights
from torch_mmd_losses.results import Losses, Terms
from torch_mmd_losses.types import Estimator


def discriminator_objective(lambda_: float) -> Objective:
    """Return the weights of `L_{D,lambda}`, Eq. 5 of Wang et al., and its bounds, those of Eq. 6 or Eq. 7."""
    weights = Weights(real=lambda_, cross=1.0 - lambda_, fake=-1.0)
    return Objective(weights, "attractive" if lambda_ < 0 else "repulsive")


class MMDLoss(BatchLoss):
    r"""Losses of the discriminator and the generator of an MMD GAN.

    With real scores :math:`x, x'` and fake scores :math:`y, y'`, both to be minimised,

    .. math::

        L_{D,\lambda} &= \lambda E\,k(x, x') - (\lambda - 1) E\,k(x, y) - E\,k(y, y')

        L_G &= \mathrm{MMD}^2 = E\,k(x, x') - 2 E\,k(x, y) + E\,k(y, y')

    ==============  ===========================  =====================================
    name            kernel                       `lambda_`
    ==============  ===========================  =====================================
    MMD-rep-b       `RBFBKernel()` (default)     1 (default): the repulsive loss, Eq. 4
    MMD-rep         `RBFKernel()`                1
    MMD-rbf-b       `RBFBKernel()`               -1: the attractive loss, Eq. 3
    MMD-rbf         `RBFMix()`                   -1
    MMD-rq          `RationalQuadraticMix()`     -1
    ==============  ===========================  =====================================

    The discriminator should put out several numbers per sample (16 in the papers), without a sigmoid, and needs a
    Lipschitz constraint such as :func:`conv_spectral_norm`. Its loss is not symmetric in its arguments: pass them by
    the keywords `real=` and `fake=`. The module has no state but the kernel's, and never changes it.

    Args:
        kernel: the kernel; None makes an `RBFBKernel()`.
        lambda_: weight of the repulsion between real scores, finite; below zero they are attracted instead.
        estimator: which pairs the means run over, see :func:`mmd2`. The authors' code uses `"u_statistic"`, which needs
            equally many real and fake scores.
        global_batch: under `torch.distributed`, take the losses of the batches of all processes together instead of
            this one's. Values are the same in every process; gradients are those whose *average* over the processes is
            exact, as DistributedDataParallel takes it. All processes have to call the same methods in the same order,
            with at least one real and one fake sample each, but not equally many. Without
            `torch.distributed`, or with one process, it changes nothing.
        tile_size: rows and columns of the parts in which large samples are processed, >= 1. None chooses by the device;
            smaller ones need less memory.

    Raises:
        TypeError: if `kernel` is no :class:`Kernel`, `lambda_` no real number, `global_batch` no bool or `tile_size` no
            integer.
        ValueError: if `lambda_` is not finite, the estimator is unknown or `tile_size` is below 1.

    Example:
        >>> loss = MMDLoss(kernel=RBFBKernel(), lambda_=1.0)
        >>> real, fake = torch.randn(64, 16), torch.randn(64, 16, requires_grad=True)
        >>> loss.generator(real=real, fake=fake).backward()
        >>> loss.discriminator(real=real, fake=fake).shape
        torch.Size([])

    References:
        Wang et al. (2019), Eq. 2 to 5.
    """

    def __init__(
        self,
        kernel: Kernel | None = None,
        lambda_: float = 1.0,
        *,
        estimator: Estimator = "unbiased",
        global_batch: bool = False,
        tile_size: int | None = None,
    ) -> None:
        kernel = RBFBKernel() if kernel is None else kernel
        super().__init__(kernel, estimator=estimator, global_batch=global_batch, tile_size=tile_size)
        self.lambda_ = checks.finite_number("lambda_", lambda_)

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        r"""Return the discriminator's loss :math:`L_{D,\lambda}` (Eq. 5), to be minimised.

        Args:
            real: scores of real samples, `(m, d)` in any floating-point dtype; `(m,)` and `(m, ...)` are flattened.
            fake: scores of fake samples, `(n, d)`, likewise.

        Returns:
            A scalar, float64 for float64 scores and float32 for all others; it may have either sign.

        Raises:
            TypeError: if scores are no tensors.
            ValueError: if scores are empty, not floating-point, too few for the estimator or, for `"u_statistic"`,
                not equally many; if they differ in dimension, dtype or device.
        """
        return self._losses(real, fake, discriminator_objective(self.lambda_))[0]

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        r"""Return the generator's loss :math:`L_G = \mathrm{MMD}^2` (Eq. 2) with the unbounded kernel.

        The real scores do not depend on the generator, so they may be detached. Arguments, result and errors are
        those of :meth:`discriminator`.
        """
        return self._losses(real, fake, GENERATOR)[0]

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the generator's loss, :meth:`generator`."""
        return self.generator(real, fake)

    def both(self, real: Tensor, fake: Tensor) -> Losses:
        """Return both losses, computed from one set of distances.

        For simultaneous updates, as the authors train: one forward of the discriminator on real and fake samples, then
        the gradient of the first loss with respect to the discriminator and of the second with respect to the
        generator. Arguments and errors are those of :meth:`discriminator`.

        Returns:
            A named tuple `(discriminator, generator)` of the values of the two methods.

        Example:
            >>> loss, D = MMDLoss(), torch.nn.Linear(3, 16)
            >>> G = torch.nn.Linear(2, 3)
            >>> real, fake = D(torch.cat([torch.randn(8, 3), G(torch.randn(8, 2))])).chunk(2)
            >>> loss_d, loss_g = loss.both(real=real, fake=fake)
            >>> grads_d = torch.autograd.grad(loss_d, list(D.parameters()), retain_graph=True)
            >>> grads_g = torch.autograd.grad(loss_g, list(G.parameters()))
        """
        return Losses(*self._losses(real, fake, discriminator_objective(self.lambda_), GENERATOR))

    def terms(self, real: Tensor, fake: Tensor) -> Terms:
        r"""Return the three mean kernel values and the share of saturated pairs, for logging.

        Neither loss tells how far training has come; the authors advise to watch these instead and to keep the means
        near the middle of the kernel's range (about 0.6 for one Gaussian kernel). The means are those of the unbounded
        kernel. A pair is saturated if its kernel value is below 0.01 or above 0.99 of :math:`k(a, a)`, or if a bound
        holds its distance in the discriminator's loss; a sum of kernels saturates where all its parts do, and kernels
        without a peak (linear, energy) never do.

        Arguments and errors are those of :meth:`discriminator`.

        Returns:
            A named tuple `(k_rr, k_rf, k_ff, saturated)` of detached scalars in the dtype of the losses.

        Example:
            >>> terms = MMDLoss(kernel=RBFKernel()).terms(real=torch.tensor([0.0, 1.0]), fake=torch.tensor([9.0, 9.5]))
            >>> [round(float(value), 3) for value in terms]
            [0.607, 0.0, 0.882, 0.5]
        """
        return self._terms(real, fake, discriminator_objective(self.lambda_).bounds)

    def extra_repr(self) -> str:
        """Return the arguments but the kernel, which is a child module, for `repr`."""
        names = ("lambda_", "estimator", "global_batch", "tile_size")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
