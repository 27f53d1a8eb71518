"""Scaled MMD: MMD scaled by a bound on the critic's value and gradient at the real samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.hand_written_gradients import eager_only, reverse_mode_only, where_transforms_record
from torch_mmd_losses.kernels.base import Kernel, rough_parts
from torch_mmd_losses.kernels.inner_product import is_linear
from torch_mmd_losses.kernels.radial import RBFKernel
from torch_mmd_losses.kernels.summands import GramSummand, RadialSummand, Summand, is_trained
from torch_mmd_losses.losses.batch_loss import BatchLoss
from torch_mmd_losses.losses.input_gradients import squared_gradient_norms
from torch_mmd_losses.pairs.batch import Batch
from torch_mmd_losses.pairs.objective import GENERATOR
from torch_mmd_losses.pairs.objective_values import objective_values
from torch_mmd_losses.precision import total_dtype
from torch_mmd_losses.results import Losses, ScaledTerms
from torch_mmd_losses.types import SCALES, Estimator, Scale


class ScaledMMDLoss(BatchLoss):
    r"""Losses of the discriminator and the generator of a scaled MMD GAN (SMMD, SWGAN).

    The two losses, both to be minimised, are

    .. math:: L_D = -\varsigma\,\mathrm{MMD}^2, \qquad L_G = \varsigma\,\mathrm{MMD}^2.

    Here :math:`\mathrm{MMD}^2` is that of the scores. The scale :math:`\varsigma` falls as the discriminator :math:`D`
    gets steeper at the real samples :math:`x`.

    The scale has two forms. The exact scale is :math:`\sigma^2_{k,\mu,\lambda}` of Proposition 5 with the distribution
    of the data as :math:`\mu`. :math:`L_G` is then the square of Eq. 11, which is a lower bound of the
    gradient-constrained MMD. The practical scale, used in the experiments of Section 4, is :math:`\lambda` times the
    exact scale. For kernels of the distance it also omits the constant :math:`k(x, x)` in the denominator:

    ===========================  =====================================================================================
    kernel                       :math:`1 / \varsigma`
    ===========================  =====================================================================================
    of the distance, exact       :math:`\lambda + f(0) - 2 f'(0)\,E \lVert \nabla D(x) \rVert^2`
    of the distance, practical   :math:`1 - 2 f'(0)\,E \lVert \nabla D(x) \rVert^2 / \lambda`
    linear, exact                :math:`\lambda + E \lVert D(x) \rVert^2 + E \lVert \nabla D(x) \rVert^2`
    linear, practical            :math:`1 + (E \lVert D(x) \rVert^2 + E \lVert \nabla D(x) \rVert^2) / \lambda`
    ===========================  =====================================================================================

    Kernels of the distance are :math:`k(a, b) = f(\lVert a - b \rVert^2)`, and :math:`-2 f'(0)` is
    :math:`1 / \sigma^2` for a Gaussian kernel and :math:`1 / \ell^2` for a rational quadratic kernel with length scale
    :math:`\ell`. For sums and multiples of kernels, all terms add up. The gradient is the derivative of all scores of a
    sample with respect to all entries of the sample, and its norm is the Frobenius norm.

    ============  ==============================================  ======================================================
    name          loss                                            :math:`L_G` in Section 4
    ============  ==============================================  ======================================================
    SMMD          `ScaledMMDLoss()`                               :math:`\mathrm{MMD}^2 / (1 + 10 g)`
    SMMD, CelebA  `ScaledMMDLoss(lambda_=10.0)`                   :math:`\mathrm{MMD}^2 / (1 + 0.1 g)`
    SWGAN         `ScaledMMDLoss(LinearKernel(), squared=False)`  :math:`(ED(x) - ED(y)) / (1 + 10 (ED(x)^2 + g))^{1/2}`
    ============  ==============================================  ======================================================

    Here :math:`g = E \lVert \nabla D(x) \rVert^2`, and :math:`y` are fake samples.

    The losses need the real samples in addition to their scores. Make the samples require gradients before you pass
    them to the discriminator, and pass the same tensor to the loss as `inputs`. Each score may depend on its own sample
    only, so the discriminator must not contain BatchNorm. A loss takes one backward pass for each score of a sample to
    compute the gradients, and the backward pass of the discriminator's loss differentiates all these passes again. So
    output few scores; the paper outputs 1. The discriminator must not be compiled, since PyTorch does not differentiate
    compiled code twice.

    Args:
        kernel: a kernel of the distance that is smooth at distance zero, :class:`LinearKernel`, or sums and multiples
            of them. None creates an `RBFKernel()`. The bounds of an :class:`RBFBKernel` are ignored.
        scale: `"practical"` or `"exact"`, see above.
        lambda_: the weight :math:`\lambda` of the RKHS norm, > 0. A larger weight reduces the influence of the
            gradient. It is not the `lambda_` of :class:`MMDLoss`.
        squared: whether the losses contain :math:`\mathrm{MMD}^2`. False takes the roots of :math:`\mathrm{MMD}^2` and
            of the scale, for `LinearKernel` and one score per sample only. The root of :math:`\mathrm{MMD}^2` is then
            :math:`E D(x) - E D(y)`, which keeps its sign.
        estimator: the pairs to average over, see :func:`mmd2`. It has no effect with `squared=False`.
        global_batch: under `torch.distributed`, compute the losses and the scale of the joint batch of all processes,
            see :class:`MMDLoss`.
        tile_size: side length of the tiles used for large batches, >= 1. None picks a default for the device; smaller
            tiles need less memory.
        remember_real: let `generator(fake=...)` without real scores and samples use the real scores and the scale of
            the last call of :meth:`discriminator` or :meth:`both`, detached. This saves a forward pass and the
            gradients of the real samples. Scores and scale are one step old. Otherwise, the option works as in
            :class:`MMDLoss`.

    Raises:
        TypeError: if `kernel` is not a :class:`Kernel` or has no scale, `lambda_` is not a real number, `squared`,
            `global_batch` or `remember_real` is not a bool, or `tile_size` is not an integer.
        ValueError: if `lambda_` is not positive and finite, `scale` or the estimator is unknown, `tile_size` is below
            1, or `squared=False` is combined with a kernel other than the linear kernel.

    Warns:
        UsageWarning: as in :class:`MMDLoss`, except for one score per sample, which is right here.

    Example:
        >>> loss, D = ScaledMMDLoss(), torch.nn.Bilinear(3, 3, 1)
        >>> real, fake = torch.randn(64, 3).requires_grad_(), torch.randn(64, 3)
        >>> scores = {"real": D(real, real), "fake": D(fake, fake)}
        >>> loss.discriminator(**scores, inputs=real).backward()
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
        remember_real: bool = False,
    ) -> None:
        super().__init__(
            RBFKernel() if kernel is None else kernel,
            estimator=estimator,
            global_batch=global_batch,
            tile_size=tile_size,
            remember_real=remember_real,
        )
        self.scale: Scale = scale
        self.lambda_ = lambda_
        self.squared = squared

    def discriminator(self, real: Tensor, fake: Tensor, inputs: Tensor) -> Tensor:
        r"""Return the discriminator's loss :math:`-\varsigma\,\mathrm{MMD}^2`, to be minimised.

        Args:
            real: scores `(m, d)` in any floating-point dtype; `(m,)` and `(m, ...)` are flattened from dim 1.
            fake: scores `(n, d)`, likewise.
            inputs: the real samples `(m, ...)`, in any floating-point dtype. This must be the tensor that was passed to
                the discriminator. It must require gradients, and `real` must be a differentiable function of it.

        Returns:
            A scalar, float64 for float64 scores and float32 for all others. It may have either sign.

        Raises:
            TypeError: if an argument is not a tensor.
            ValueError: if scores are empty, not floating-point, or too few for the estimator; if real and fake scores
                are not equally many for `"u_statistic"`; if they differ in dimension, dtype or device; if there is more
                than one score per sample with `squared=False`; if `inputs` is not floating-point, does not require
                gradients, or differs from `real` in the number of samples; if `real` does not depend on `inputs`.
        """
        return self.both(real, fake, inputs).discriminator

    def generator(self, real: Tensor | None = None, fake: Tensor | None = None, inputs: Tensor | None = None) -> Tensor:
        r"""Return the generator's loss :math:`\varsigma\,\mathrm{MMD}^2`, to be minimised.

        Real scores and the scale do not depend on the generator and are constants here. The real scores must still have
        their autograd graph, because the scale is computed from it. Arguments, return value and further errors are
        those of :meth:`discriminator`.

        Args:
            real: real scores. None takes those of the last discriminator's loss, if `remember_real` is True.
            fake: fake scores.
            inputs: the real samples; None if `real` is None.

        Raises:
            RuntimeError: if `real` is None and there was no discriminator's loss yet.
            TypeError: if `real` is None and `remember_real` is False, if `fake` is None, or if only one of `real` and
                `inputs` is None.
        """
        if real is None or fake is None or inputs is None:
            with self._announced_errors(real, fake):
                self._check_fake(fake)
                if real is not None or (inputs is not None and self.remember_real):
                    missing = "inputs" if inputs is None else "real"
                    raise TypeError(f"{missing}: expected a tensor, got NoneType; real and inputs belong together")
                real = self._recalled(fake)
            scale = self._remembered.scale
            mmd = self._on_batch(self._mmd_of_batch, real, fake)  # type: ignore[arg-type] # fake is checked above
        else:
            mmd, scale = self._mmd_and_scale(real, fake, inputs, create_graph=False)
        return self._scaled(mmd, scale.detach())  # type: ignore[union-attr] # there is a scale with the real scores

    def forward(
        self, *scores: object, real: Tensor | None = None, fake: Tensor | None = None, inputs: Tensor | None = None
    ) -> Tensor:
        """Return the generator's loss, see :meth:`generator`. Scores are accepted by keyword only.

        Raises:
            TypeError: if scores are passed by position.
        """
        self._refuse_positional(scores, "real=..., fake=..., inputs=...")
        return self.generator(real=real, fake=fake, inputs=inputs)

    def both(self, real: Tensor, fake: Tensor, inputs: Tensor) -> Losses:
        """Return both losses, for simultaneous updates, see :meth:`MMDLoss.both`.

        The scale is a constant in the generator's loss, but the real scores are not. Arguments and errors are those of
        :meth:`discriminator`.
        """
        mmd, scale = self._mmd_and_scale(real, fake, inputs, create_graph=torch.is_grad_enabled())
        self._remember(real, scale)
        return Losses(-self._scaled(mmd, scale), self._scaled(mmd, scale.detach()))

    def terms(self, real: Tensor, fake: Tensor, inputs: Tensor) -> ScaledTerms:
        """Return the three mean kernel values, the fraction of saturated pairs and the scale, for logging.

        For the first four numbers see :meth:`MMDLoss.terms`. The bounds of an :class:`RBFBKernel` are ignored.
        Arguments and errors are those of :meth:`discriminator`.

        Returns:
            A named tuple `(k_rr, k_rf, k_ff, saturated, scale)` of detached scalars in the dtype of the losses.
        """
        with torch.no_grad():
            _, scale = self._mmd_and_scale(real, fake, inputs, create_graph=False)
            means = self._terms(real, fake, "none")
        return ScaledTerms(*means, scale.to(means.k_rr.dtype))

    def extra_repr(self) -> str:
        """Return the arguments for `repr`, except the kernel, which is a child module."""
        names = ("scale", "lambda_", "squared", "estimator", "global_batch", "tile_size", "remember_real")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)

    def _checked(self, name: str, value: Any) -> Any:  # noqa: ANN401
        if name == "scale":
            checks.one_of("scale", value, SCALES)
        elif name == "lambda_":
            return checks.positive_number("lambda_", value)
        elif name == "squared":
            _check_squared(checks.flag("squared", value), self.kernel)
        value = super()._checked(name, value)
        if name == "kernel":
            for summand in value._summands():
                _check_scalable(summand)
            _check_squared(getattr(self, "squared", True), value)
        return value

    def _scaled(self, mmd: Tensor, scale: Tensor) -> Tensor:
        return ((scale if self.squared else scale.sqrt()) * mmd).to(mmd.dtype)

    @eager_only
    def _mmd_and_scale(
        self, real: Tensor, fake: Tensor, inputs: Tensor, *, create_graph: bool
    ) -> tuple[Tensor, Tensor]:
        """Return MMD^2, or the difference of the means with `squared=False`, and the scale of MMD^2."""
        with self._announced_errors(real, fake), torch.enable_grad():
            real, fake = checks.same_space("real", real, "fake", fake)
            if not (self.squared or real.shape[1] == 1):
                raise ValueError(f"real: expected one score per sample with squared=False, got {real.shape[1]}")
            squares = squared_gradient_norms(
                "real", real, inputs, create_graph=create_graph, dtype=total_dtype(real.device)
            )
        mmd_and_scale: tuple[Tensor, Tensor] = self._on_batch(
            self._mmd_and_scale_of_batch, real if create_graph else real.detach(), fake, squares=squares
        )
        self._examine(real, fake, of_discriminator=create_graph)
        return mmd_and_scale

    def _mmd_and_scale_of_batch(
        self, kernel: Kernel, real: Tensor, fake: Tensor, estimator: Estimator, *, squares: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        mmd = self._mmd_of_batch(kernel, real, fake, estimator, batch=batch)
        return mmd, self._scale(kernel._summands(), real, squares, batch)

    def _mmd_of_batch(
        self, kernel: Kernel, real: Tensor, fake: Tensor, estimator: Estimator, *, batch: Batch
    ) -> Tensor:
        if self.squared:
            return objective_values(
                kernel, real, fake, estimator, objectives=[GENERATOR], tile_size=self.tile_size, batch=batch
            )[0]
        difference = batch.mean(real.squeeze(1), 0) - batch.mean(fake.squeeze(1), 1)
        return (math.sqrt(sum(summand.factor for summand in kernel._summands())) * difference).to(real.dtype)

    def _scale(self, summands: Sequence[Summand], real: Tensor, squares: Tensor, batch: Batch) -> Tensor:
        constant: float | Tensor = 0.0
        per_sample = torch.zeros_like(squares)
        for summand in summands:
            if isinstance(summand, RadialSummand):
                peak, curvature = _peak_and_curvature(summand, real)
                constant = constant + summand.factor * peak
                per_sample = per_sample + summand.factor * curvature * squares
            else:  # linear, see _check_scalable
                per_sample = per_sample + summand.factor * (real.to(squares.dtype).square().sum(1) + squares)
        mean = batch.mean(per_sample, 0)
        return 1 / (self.lambda_ + constant + mean if self.scale == "exact" else 1 + mean / self.lambda_)


def _check_squared(squared: bool, kernel: Kernel) -> None:
    """Raise if a kernel has no root of MMD^2."""
    if not squared and not all(is_linear(summand) for summand in kernel._summands()):
        raise ValueError(
            f"squared: expected True for all kernels except LinearKernel, got False with {type(kernel).__name__}"
        )


def _peak_and_curvature(summand: RadialSummand, like: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return :math:`f(0)` and :math:`-2 f'(0)` of a kernel :math:`f(\lVert a - b \rVert^2)`.

    These are :math:`k(a, a)` and, for each of the `d` coordinates, the mixed second derivative with respect to both
    arguments at `(a, a)`.
    """
    profile = summand.profile
    # The library's kernels take any dtype, and the square of a length scale may not fit into float32.
    dtype = total_dtype(like.device) if profile.by_hand else like.dtype
    zero = torch.zeros(1, 1, dtype=dtype, device=like.device)
    if profile.by_hand:
        value, slope, rate = profile.value_and_slope(zero)
        return value.sum(), -2 * rate * slope.sum()
    peak, slope = _peak_and_slope(summand, zero)
    return peak, -2 * slope.sum()


def _peak_and_slope(summand: RadialSummand, zero: Tensor) -> tuple[Tensor, Tensor]:
    """Return the value and the slope of a kernel at distance zero, with graphs if it is trained."""
    value = summand.profile.value
    if not reverse_mode_only(zero) or torch.is_inference_mode_enabled():
        slope, peak = where_transforms_record(torch.func.grad_and_value(lambda x: value(x).sum()))(zero)
        return peak, slope
    # Transforms refuse functions of users without setup_context.
    trained = torch.is_grad_enabled() and is_trained(summand, zero)
    with torch.enable_grad():
        leaf = zero.requires_grad_()
        peak, slope = value(leaf).sum(), torch.zeros_like(leaf)
        if peak.requires_grad:  # a constant has no graph
            (slope,) = torch.autograd.grad(peak, leaf, create_graph=trained, materialize_grads=True)
    return (peak if trained else peak.detach()), slope


def _check_scalable(summand: Summand) -> None:
    """Raise if a summand has no scale."""
    kernel, name = summand.kernel, type(summand.kernel).__name__
    if is_linear(summand):
        return
    if isinstance(summand, GramSummand):
        raise TypeError(
            f"kernel: expected a kernel of the distance, a LinearKernel, or sums and multiples of them, got {name}"
        )
    device = next((state.device for state in (*kernel.parameters(), *kernel.buffers())), torch.device("cpu"))
    peak, curvature = _peak_and_curvature(summand, torch.ones(1, 1, device=device))
    # The slope that stands for that of a cusp is zero, which hides a cusp within a product.
    if rough_parts(kernel) or not (peak > 0 and 0 < curvature < math.inf):
        raise TypeError(
            "kernel: expected a kernel that is positive and smooth at distance zero, with a negative slope in the "
            f"squared distance, got {name} with value {peak.item():g} and slope {-curvature.item() / 2:g}"
        )
