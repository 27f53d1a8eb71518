"""The losses of MMD GANs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.hand_written_gradients import in_function_transform
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.bounded import RBFBKernel
from torch_mmd_losses.losses import first_calls
from torch_mmd_losses.losses.batch_loss import BatchLoss
from torch_mmd_losses.pairs.objective import GENERATOR, Objective, Weights
from torch_mmd_losses.results import Losses, Terms
from torch_mmd_losses.types import Estimator


def discriminator_objective(lambda_: float) -> Objective:
    """Return the discriminator's loss `L_{D,lambda}`: weights by Eq. 5 and bounds by Eq. 6 or 7 of Wang et al."""
    weights = Weights(real=lambda_, cross=1.0 - lambda_, fake=-1.0)
    return Objective(weights, "attractive" if lambda_ < 0 else "repulsive")


class MMDLoss(BatchLoss):
    r"""Losses of the discriminator and the generator of an MMD GAN.

    For real scores :math:`x, x'` and fake scores :math:`y, y'` the two losses, both to be minimised, are

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

    The discriminator should output several scores per sample (16 in the papers), without a sigmoid, and needs a
    Lipschitz constraint such as :func:`conv_spectral_norm`. The discriminator's loss is not symmetric in real and fake
    scores, so pass them by keyword, `real=` and `fake=`. The module has no state except the state of its kernel, which
    it never changes. Options may be assigned later, `loss.lambda_ = 0.5`, and are checked as in the constructor.

    Args:
        kernel: any kernel. None creates an `RBFBKernel()`. The bounds of an :class:`RBFBKernel` apply to the
            discriminator's loss only.
        lambda_: weight of the repulsion between real scores, finite. A negative weight attracts real scores to each
            other.
        estimator: the pairs to average over, see :func:`mmd2`. The authors' code uses `"u_statistic"`, which needs
            equally many real and fake scores.
        global_batch: under `torch.distributed`, compute the losses of the joint batch of all processes instead of the
            batch of this process. The values are the same in every process. Averaging gradients over processes, as DDP
            does, gives the exact gradient of the joint batch. All processes must call the same methods in the same
            order, each with at least one real and one fake sample; the numbers of samples may differ. Without
            `torch.distributed`, or with a single process, the option has no effect.
        tile_size: side length of the tiles used for large batches, >= 1. None picks a default for the device; smaller
            tiles need less memory.
        remember_real: let `generator(fake=...)` without real scores use those of the last call of :meth:`discriminator`
            or :meth:`both`, detached. These scores are one step old: the discriminator has been updated since. Calls
            without gradients, such as those of a validation, are not remembered. Several discriminators, or several
            scales of one, need a loss each. With `global_batch`, each process remembers its own scores. The scores are
            not in the state dict, and copies and pickles do not have them.

    Raises:
        TypeError: if `kernel` is not a :class:`Kernel`, `lambda_` is not a real number, `global_batch` or
            `remember_real` is not a bool, or `tile_size` is not an integer.
        ValueError: if `lambda_` is not finite, the estimator is unknown, or `tile_size` is below 1.

    Warns:
        UsageWarning: in the first three calls of an object: if there is one score per sample and `lambda_ >= 0`; if all
            gradients are exactly zero, because the kernel does not reach from any score to another; or if the real
            scores of :meth:`discriminator` or :meth:`both` are the output of a sigmoid or a softmax. The autograd graph
            shows these functions, so a compiled discriminator is not examined. In the first three calls of
            :meth:`discriminator` and :meth:`both` with gradients enabled: if only the real or only the fake scores
            require gradients, twice in a row, unless a kernel of yours has trained parameters, which learn from both.
            In the first three calls of :meth:`terms`: if more than 99 % of the pairs are saturated. In
            :meth:`generator` without real scores: if the discriminator of an earlier loss, and not that of the
            remembered real scores, has computed the fake scores. Only the first sixteen losses whose real scores are
            remembered count for this. Discriminators that share trained layers are not told apart, because one
            discriminator may use different layers in each call. Later calls are not examined.

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
        remember_real: bool = False,
    ) -> None:
        super().__init__(
            RBFBKernel() if kernel is None else kernel,
            estimator=estimator,
            global_batch=global_batch,
            tile_size=tile_size,
            remember_real=remember_real,
        )
        self.lambda_ = lambda_

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        r"""Return the discriminator's loss :math:`L_{D,\lambda}` (Eq. 5), to be minimised.

        Args:
            real: scores `(m, d)` in any floating-point dtype; `(m,)` and `(m, ...)` are flattened from dim 1.
            fake: scores `(n, d)`, likewise.

        Returns:
            A scalar, float64 for float64 scores and float32 for all others. It may have either sign.

        Raises:
            TypeError: if scores are not tensors.
            ValueError: if scores are empty, not floating-point, or too few for the estimator; if real and fake scores
                are not equally many for `"u_statistic"`; if they differ in dimension, dtype or device.
        """
        (loss,) = self._losses(real, fake, discriminator_objective(self.lambda_))
        self._remember(real)
        return loss

    def generator(self, real: Tensor | None = None, fake: Tensor | None = None) -> Tensor:
        r"""Return the generator's loss :math:`L_G = \mathrm{MMD}^2` (Eq. 2), to be minimised.

        The bounds of an :class:`RBFBKernel` are ignored. The real scores do not depend on the generator, so they may be
        detached. Arguments, return value and further errors are those of :meth:`discriminator`.

        Args:
            real: real scores. None takes those of the last discriminator's loss, if `remember_real` is True.
            fake: fake scores.

        Raises:
            RuntimeError: if `real` is None and there was no discriminator's loss yet.
            TypeError: if `real` is None and `remember_real` is False, or `fake` is None.
            ValueError: if real scores require gradients but fake scores do not. They are then most likely swapped. This
                is not checked under :func:`torch.no_grad` and in function transforms.
        """
        if real is None or fake is None:
            with self._announced_errors(real, fake):
                real = self._recalled(fake) if real is None else real
                self._check_fake(fake)
        (loss,) = self._losses(real, fake, GENERATOR)  # type: ignore[arg-type] # it checks scores of any type
        if real.requires_grad and not fake.requires_grad:  # type: ignore[union-attr]
            _refuse_swapped()
        return loss

    def forward(self, *scores: object, real: Tensor | None = None, fake: Tensor | None = None) -> Tensor:
        """Return the generator's loss, see :meth:`generator`. Scores are accepted by keyword only.

        Raises:
            TypeError: if scores are passed by position.
        """
        self._refuse_positional(scores, "real=..., fake=...")
        return self.generator(real=real, fake=fake)

    def both(self, real: Tensor, fake: Tensor) -> Losses:
        """Return both losses, computed from one set of distances.

        Use this method for simultaneous updates, as in the authors' training: run the discriminator once on real and
        fake samples, then compute the gradient of the first loss with respect to the discriminator and the gradient of
        the second loss with respect to the generator. Arguments and errors are those of :meth:`discriminator`.

        Returns:
            A named tuple `(discriminator, generator)` with the values of :meth:`discriminator` and :meth:`generator`.

        Example:
            >>> loss, D = MMDLoss(), torch.nn.Linear(3, 16)
            >>> G = torch.nn.Linear(2, 3)
            >>> real, fake = D(torch.cat([torch.randn(8, 3), G(torch.randn(8, 2))])).chunk(2)
            >>> loss_d, loss_g = loss.both(real=real, fake=fake)
            >>> grads_d = torch.autograd.grad(loss_d, list(D.parameters()), retain_graph=True)
            >>> grads_g = torch.autograd.grad(loss_g, list(G.parameters()))
        """
        losses = Losses(*self._losses(real, fake, discriminator_objective(self.lambda_), GENERATOR))
        self._remember(real)
        return losses

    def terms(self, real: Tensor, fake: Tensor) -> Terms:
        r"""Return the three mean kernel values and the fraction of saturated pairs, for logging.

        Neither loss shows the progress of training. The authors advise watching the mean kernel values instead, and
        keeping them near the middle of the kernel's range (about 0.6 for one Gaussian kernel). The means ignore the
        bounds of an :class:`RBFBKernel`.

        A pair is saturated if its kernel value is below 0.01 or above 0.99 of :math:`k(a, a)`, or if a bound clamps its
        distance in the discriminator's loss. For a sum of kernels, a pair is saturated if all summands are. Kernels
        without a peak (linear, energy) never saturate.

        Arguments and errors are those of :meth:`discriminator`.

        Returns:
            A named tuple `(k_rr, k_rf, k_ff, saturated)` of detached scalars in the dtype of the losses.

        Example:
            >>> real = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
            >>> fake = torch.tensor([[9.0, 0.0], [9.5, 0.0]])
            >>> terms = MMDLoss(kernel=RBFKernel()).terms(real=real, fake=fake)
            >>> [round(float(value), 3) for value in terms]
            [0.607, 0.0, 0.882, 0.5]
        """
        return self._terms(real, fake, discriminator_objective(self.lambda_).bounds)

    def extra_repr(self) -> str:
        """Return the arguments for `repr`, except the kernel, which is a child module."""
        names = ("lambda_", "estimator", "global_batch", "tile_size", "remember_real")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)

    def _checked(self, name: str, value: Any) -> Any:  # noqa: ANN401
        return checks.finite_number("lambda_", value) if name == "lambda_" else super()._checked(name, value)

    def _warn_of_scores(self, real: Tensor) -> None:
        if self.lambda_ >= 0:
            first_calls.warn_of_one_score(type(self).__name__, real)


def _refuse_swapped() -> None:
    """Raise if gradients are wanted. In a function transform, `requires_grad` does not tell which."""
    if torch.is_grad_enabled() and not in_function_transform():
        raise ValueError(
            "real, fake: expected fake scores that require gradients, got real scores that require gradients and fake "
            "scores that do not. Are they swapped? The generator's gradient comes from fake=; real= may be detached"
        )
