"""Scaled MMD: MMD scaled by a bound on the critic's value and gradient at the real samples."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.autograd import eager_only
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.inner_product import LinearKernel
from torch_mmd_losses.kernels.radial import RBFKernel
from torch_mmd_losses.kernels.summands import GramSummand, RadialSummand, Summand, is_trained
from torch_mmd_losses.losses.batch_loss import BatchLoss
from torch_mmd_losses.losses.input_gradients import squared_gradient_norms
from torch_mmd_losses.pairs.batch import Batch
from torch_mmd_losses.pairs.evaluation import objective_values
from torch_mmd_losses.pairs.objective import GENERATOR
from torch_mmd_losses.results import Losses, ScaledTerms
from torch_mmd_losses.types import SCALES, Estimator, Scale


class ScaledMMDLoss(BatchLoss):
    r"""Losses of the discriminator and the generator of a scaled MMD GAN (SMMD, SWGAN).

    With the discriminator :math:`D`, real samples :math:`x`, :math:`\mathrm{MMD}^2` of the scores and a scale
    :math:`\varsigma` that falls as :math:`D` gets steeper at real samples, both to be minimised,

    .. math:: L_D = -\varsigma\,\mathrm{MMD}^2, \qquad L_G = \varsigma\,\mathrm{MMD}^2.

    There are two forms of the scale. The exact one is :math:`\sigma^2_{k,\mu,\lambda}` of Proposition 5 with the data
    as :math:`\mu`, which makes :math:`L_G` the square of Eq. 11; it is a lower bound of the gradient-constrained MMD.
    The practical one, of the experiments in Section 4, is :math:`\lambda` times that, without the constant
    :math:`k(x, x)` of kernels of the distance in the denominator:

    ===========================  =====================================================================================
    kernel                       :math:`1 / \varsigma`
    ===========================  =====================================================================================
    of the distance, exact       :math:`\lambda + f(0) - 2 f'(0)\,E \lVert \nabla D(x) \rVert^2`
    of the distance, practical   :math:`1 - 2 f'(0)\,E \lVert \nabla D(x) \rVert^2 / \lambda`
    linear, exact                :math:`\lambda + E \lVert D(x) \rVert^2 + E \lVert \nabla D(x) \rVert^2`
    linear, practical            :math:`1 + (E \lVert D(x) \rVert^2 + E \lVert \nabla D(x) \rVert^2) / \lambda`
    ===========================  =====================================================================================

    for :math:`k(a, b) = f(\lVert a - b \rVert^2)`. :math:`-2 f'(0)` is :math:`1 / \sigma^2` for a Gaussian kernel and 1
    for a rational quadratic one; in sums and multiples of kernels all terms add up. The gradient is that of all scores
    of a sample by all of its entries, in the Frobenius norm.

    ============  ==============================================  ======================================================
    name          loss                                            :math:`L_G` in Section 4
    ============  ==============================================  ======================================================
    SMMD          `ScaledMMDLoss()`                               :math:`\mathrm{MMD}^2 / (1 + 10 g)`
    SMMD, CelebA  `ScaledMMDLoss(lambda_=10.0)`                   :math:`\mathrm{MMD}^2 / (1 + 0.1 g)`
    SWGAN         `ScaledMMDLoss(LinearKernel(), squared=False)`  :math:`(ED(x) - ED(y)) / (1 + 10 (ED(x)^2 + g))^{1/2}`
    ============  ==============================================  ======================================================

    with :math:`g = E \lVert \nabla D(x) \rVert^2` and fake samples :math:`y`.

    The losses need the real samples beside their scores: let them require gradients before the discriminator sees
    them, and pass them as `inputs`. Each score may depend on its own sample only, so no BatchNorm in the
    discriminator. A loss takes one backward pass for each score of a sample to find the gradients, and the
    discriminator's backward goes through all of them again: have few scores, 1 as in the paper. The
    discriminator must not be compiled, since PyTorch does not differentiate compiled code twice.

    Args:
        kernel: a kernel of the distance that is smooth at distance zero, :class:`LinearKernel`, or sums and multiples
            of them; None makes an `RBFKernel()`. A bounded one is taken without its bounds.
        scale: `"practical"` or `"exact"`, see above.
        lambda_: the weight :math:`\lambda` of the RKHS norm (not that of :class:`MMDLoss`), > 0; the larger, the weaker
            the influence of the gradient.
        squared: False takes roots, for `LinearKernel` and one score per sample, where
            :math:`\mathrm{MMD} = E D(x) - E D(y)` up to its sign, which is kept.
        estimator: which pairs the means run over, see :func:`mmd2`; of no influence with `squared=False`.
        global_batch: under `torch.distributed`, take the losses of the batches of all processes together, those of the
            scale included, see :class:`MMDLoss`.
        tile_size: rows and columns of the parts in which large samples are processed, >= 1. None chooses by the device.

    Raises:
        TypeError: if `kernel` is no :class:`Kernel` or one without a scale, `lambda_` no real number, `squared` or
            `global_batch` no bool or `tile_size` no integer.
        ValueError: if `lambda_` is not positive and finite, `scale` or the estimator is unknown, `tile_size` is below 1
            or `squared=False` meets another kernel than the linear one.

    Example:
        >>> loss, D = ScaledMMDLoss(), torch.nn.Bilinear(3, 3, 1)
        >>> real, fake = torch.randn(64, 3).requires_grad_(), torch.randn(64, 3)
        >>> loss.discriminator(real=D(real, real), fake=D(fake, fake), inputs=real).backward()
        >>> loss.generator(real=D(real, real), fake=D(fake, fake), inputs=real).shape
        torch.Size([])

    References:
        Arbel et al. (2018), Proposition 5, Eq. 11 and Section 4.
    """

    def __init__(
        self,
        kernel: Kernel | None = None,
        *,
        scale: Scale = "practical",
        lambda_: float = 0.1,
        squared: bool = True,
        estimator: Estimator = "unbiased",
        global_batch: bool = False,
        tile_size: int | None = None,
    ) -> None:
        kernel = RBFKernel() if kernel is None else kernel
        super().__init__(kernel, estimator=estimator, global_batch=global_batch, tile_size=tile_size)
        checks.one_of("scale", scale, SCALES)
        self.scale: Scale = scale
        self.lambda_ = checks.positive_number("lambda_", lambda_)
        self.squared = checks.flag("squared", squared)
        summands = self.kernel._summands()
        for summand in summands:
            _check_scalable(summand)
        if not squared and not all(_is_linear(summand) for summand in summands):
            raise ValueError(f"squared: expected True, except for LinearKernel, got False with {type(kernel).__name__}")

    def discriminator(self, real: Tensor, fake: Tensor, inputs: Tensor) -> Tensor:
        r"""Return the discriminator's loss :math:`-\varsigma\,\mathrm{MMD}^2`, to be minimised.

        Args:
            real: scores of the real samples, `(m, d)` in any floating-point dtype; `(m,)` and `(m, ...)` are flattened.
            fake: scores of fake samples, `(n, d)`, likewise.
            inputs: the real samples, `(m, ...)` in any floating-point dtype, as the discriminator saw them; they
                require gradients, and `real` is a differentiable function of them.

        Returns:
            A scalar, float64 for float64 scores and float32 for all others; it may have either sign.

        Raises:
            TypeError: if an argument is no tensor.
            ValueError: if scores are empty, not floating-point, too few for the estimator or, for `"u_statistic"`,
                not equally many; if they differ in dimension, dtype or device; if there is more than one score per
                sample with `squared=False`; if `inputs` is not floating-point, does not require gradients, has another
                number of samples than `real` or is not what `real` depends on.
        """
        return self.both(real, fake, inputs).discriminator

    def generator(self, real: Tensor, fake: Tensor, inputs: Tensor) -> Tensor:
        r"""Return the generator's loss :math:`\varsigma\,\mathrm{MMD}^2`, to be minimised.

        Real scores and the scale do not depend on the generator and are constants here. The real scores have to come
        with their graph all the same, for the scale. Arguments, result and errors are those of :meth:`discriminator`.
        """
        mmd, scale = self._measure(real, fake, inputs, create_graph=False)
        return self._scaled(mmd, scale.detach())

    def forward(self, real: Tensor, fake: Tensor, inputs: Tensor) -> Tensor:
        """Return the generator's loss, :meth:`generator`."""
        return self.generator(real, fake, inputs)

    def both(self, real: Tensor, fake: Tensor, inputs: Tensor) -> Losses:
        """Return both losses, for simultaneous updates: see :meth:`MMDLoss.both`.

        The scale is a constant in the generator's loss; real scores are not. Arguments and errors are those of
        :meth:`discriminator`.
        """
        mmd, scale = self._measure(real, fake, inputs, create_graph=torch.is_grad_enabled())
        return Losses(-self._scaled(mmd, scale), self._scaled(mmd, scale.detach()))

    def terms(self, real: Tensor, fake: Tensor, inputs: Tensor) -> ScaledTerms:
        """Return the three mean kernel values, the share of saturated pairs and the scale, for logging.

        For the first four see :meth:`MMDLoss.terms`; the means are those of the unbounded kernel. Arguments and errors
        are those of :meth:`discriminator`.

        Returns:
            A named tuple `(k_rr, k_rf, k_ff, saturated, scale)` of detached scalars in the dtype of the losses.
        """
        with torch.no_grad():
            _, scale = self._measure(real, fake, inputs, create_graph=False)
            means = self._terms(real, fake, "none")
        return ScaledTerms(*means, scale.to(means.k_rr.dtype))

    def extra_repr(self) -> str:
        """Return the arguments but the kernel, which is a child module, for `repr`."""
        names = ("scale", "lambda_", "squared", "estimator", "global_batch", "tile_size")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)

    def _scaled(self, mmd: Tensor, scale: Tensor) -> Tensor:
        return ((scale if self.squared else scale.sqrt()) * mmd).to(mmd.dtype)

    @eager_only
    def _measure(self, real: Tensor, fake: Tensor, inputs: Tensor, *, create_graph: bool) -> tuple[Tensor, Tensor]:
        """Return MMD^2, or the difference of the means with `squared=False`, and the scale of MMD^2."""
        with self._refusal_is_shared(real, fake), torch.enable_grad():
            real, fake = checks.same_space("real", real, "fake", fake)
            if not (self.squared or real.shape[1] == 1):
                raise ValueError(f"real: expected one score per sample with squared=False, got {real.shape[1]}")
            squares = squared_gradient_norms("real", real, inputs, create_graph=create_graph)
        found: tuple[Tensor, Tensor] = self._on_batch(
            self._mmd_and_scale, real if create_graph else real.detach(), fake, squares=squares
        )
        return found

    def _mmd_and_scale(
        self, kernel: Kernel, real: Tensor, fake: Tensor, estimator: Estimator, *, squares: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        summands = kernel._summands()
        if self.squared:
            (mmd,) = objective_values(
                kernel, real, fake, estimator, objectives=[GENERATOR], tile_size=self.tile_size, batch=batch
            )
        else:
            difference = batch.mean(real.squeeze(1), 0) - batch.mean(fake.squeeze(1), 1)
            mmd = (math.sqrt(sum(summand.factor for summand in summands)) * difference).to(real.dtype)
        return mmd, self._scale(summands, real, squares, batch)

    def _scale(self, summands: Sequence[Summand], real: Tensor, squares: Tensor, batch: Batch) -> Tensor:
        constant: float | Tensor = 0.0
        of_samples = torch.zeros_like(squares)
        for summand in summands:
            if isinstance(summand, RadialSummand):
                peak, curvature = _at_zero(summand, real)
                constant = constant + summand.factor * peak
                of_samples = of_samples + summand.factor * curvature * squares
            else:  # linear, see _check_scalable
                of_samples = of_samples + summand.factor * (real.square().sum(1) + squares)
        mean = batch.mean(of_samples, 0)
        return 1 / (self.lambda_ + constant + mean if self.scale == "exact" else 1 + mean / self.lambda_)


def _is_linear(summand: Summand) -> bool:
    return type(summand.kernel) is LinearKernel


def _at_zero(summand: RadialSummand, like: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return :math:`f(0)` and :math:`-2 f'(0)` of a kernel :math:`f(\lVert a - b \rVert^2)`.

    These are :math:`k(a, a)` and, for each of the `d` directions, the second derivative by both arguments at `(a, a)`.
    """
    trained = is_trained(summand, like)
    with torch.enable_grad():
        zero = like.new_zeros(1, 1).requires_grad_()
        peak = summand.profile.value(zero).sum()
        (slope,) = torch.autograd.grad(peak, zero, create_graph=trained)
    return (peak if trained else peak.detach()), -2 * slope.sum()


def _check_scalable(summand: Summand) -> None:
    """Raise if a summand has no scale."""
    kernel, name = summand.kernel, type(summand.kernel).__name__
    if _is_linear(summand):
        return
    if isinstance(summand, GramSummand):
        raise TypeError(f"kernel: expected kernels of the distance or LinearKernel, or sums of them, got {name}")
    device = next((state.device for state in (*kernel.parameters(), *kernel.buffers())), torch.device("cpu"))
    peak, curvature = _at_zero(summand, torch.ones(1, 1, device=device))
    if not (peak > 0 and 0 < curvature < math.inf):
        raise TypeError(
            "kernel: expected a kernel that is positive and smooth at distance zero, with a negative slope in the "
            f"squared distance, got {name} with value {peak.item():g} and slope {-curvature.item() / 2:g}"
        )
