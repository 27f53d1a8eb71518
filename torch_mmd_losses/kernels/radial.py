"""Kernels of the distance: Gaussians, rational quadratics and the energy kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.kernels import hyperparameters, profiles, trained_profiles
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.contract import Conditioning, ValueAndSlope, is_moderate, log_convex, with_slope
from torch_mmd_losses.kernels.summands import weighted_sum


def _conditioning_of_gaussians(sigmas: tuple[float, ...], weights: tuple[float, ...]) -> Conditioning:
    # The compiler warns of functions with a cache.
    return (_conditioning if torch.compiler.is_compiling() else _kept_conditioning)(sigmas, weights)


def _conditioning(sigmas: tuple[float, ...], weights: tuple[float, ...]) -> Conditioning:
    slopes = [0.5 * weight / sigma**2 for sigma, weight in zip(sigmas, weights, strict=True)]
    return log_convex(sum(slopes) / sum(weights), is_moderate=is_moderate(*sigmas, *weights))


_kept_conditioning = lru_cache(maxsize=32)(_conditioning)


class RBFKernel(Kernel):
    r"""Gaussian kernel, :math:`k(a, b) = \exp(-\lVert a - b \rVert^2 / (2 \sigma^2))`, with values in (0, 1].

    Args:
        sigma: bandwidth, in the units of the scores, from 1e-30 to 1e30. Other libraries call :math:`\sigma^2`,
            :math:`2 \sigma^2` or :math:`\gamma = 1 / (2 \sigma^2)` the bandwidth.
        trainable: whether to train the bandwidth, see :class:`Kernel`.

    Raises:
        TypeError: if `sigma` is not a real number, or `trainable` is not a bool.
        ValueError: if `sigma` is out of range.

    Example:
        >>> RBFKernel(sigma=2.0)(torch.zeros(1, 3), torch.ones(1, 3))
        tensor([[0.6873]])

    References:
        Wang et al. (2019), Section 4.1.
    """

    _hyperparameters = ("sigma",)

    def __init__(self, sigma: float = 1.0, *, trainable: bool = False) -> None:
        super().__init__()
        self.sigma: float | Tensor = hyperparameters.number("sigma", sigma)
        self._make_trainable(trainable)

    @with_slope(
        lambda self, sq_dist: profiles.gaussian_with_slope(sq_dist, self.sigma),
        conditioning=lambda self, _: _conditioning_of_gaussians((self.sigma,), (1.0,)),
        exponent=lambda self: profiles.gaussian_exponent(self.sigma),
        steps=lambda self, sq_dist: trained_profiles.gaussian_with_steps(sq_dist, self.sigma),
    )
    def from_sq_dist(self, sq_dist: Tensor) -> Tensor:
        """Return the kernel values at squared distances."""
        sigma: Any = self.sigma
        if self._trainable:
            return trained_profiles.gaussian(sq_dist, sigma)
        return profiles.gaussian(sq_dist, sigma)


class RBFMix(Kernel):
    r"""Weighted sum of Gaussian kernels, :math:`k(a, b) = \sum_i w_i \exp(-\lVert a - b \rVert^2 / (2 \sigma_i^2))`.

    As in the papers, the kernels are added, not averaged: with the default weights `k(a, a)` is 5.

    Args:
        sigmas: bandwidths, each from 1e-30 to 1e30. The defaults are those of Wang et al. (2019), Section 5.1. Li et
            al. (2017) use (1, 2, 4, 8, 16).
        weights: one number from 1e-30 to 1e30 for each bandwidth. None gives each kernel the weight 1.
        trainable: whether to train bandwidths and weights, see :class:`Kernel`.

    Raises:
        TypeError: if `sigmas` or `weights` is not a sequence of real numbers, or `trainable` is not a bool.
        ValueError: if one of them is empty or has a number out of range, or if their lengths differ.

    Example:
        >>> RBFMix(sigmas=(1, 2), weights=(0.5, 0.5))(torch.zeros(1, 3), torch.ones(1, 3))
        tensor([[0.4552]])

    References:
        Li et al. (2017); Wang et al. (2019), Section 4.1.
    """

    _hyperparameters = ("sigmas", "weights")

    def __init__(
        self,
        sigmas: Sequence[float] = (1.0, math.sqrt(2.0), 2.0, 2.0 * math.sqrt(2.0), 4.0),
        *,
        weights: Sequence[float] | None = None,
        trainable: bool = False,
    ) -> None:
        super().__init__()
        several = hyperparameters.numbers("sigmas", sigmas)
        self.sigmas: tuple[float, ...] | Tensor = several
        self.weights: tuple[float, ...] | Tensor = checks.mixture_weights(weights, len(several))
        self._make_trainable(trainable)

    def _value_and_slope(self: Any, sq_dist: Tensor) -> ValueAndSlope:
        return weighted_sum(profiles.gaussians_with_slopes(sq_dist, self.sigmas, self.weights))

    def _conditioning(self: Any, like: Tensor) -> Conditioning:
        return _conditioning_of_gaussians(self.sigmas, self.weights)

    @with_slope(
        _value_and_slope,
        conditioning=_conditioning,
        steps=lambda self, sq_dist: trained_profiles.gaussians_with_steps(sq_dist, self.sigmas, self.weights),
    )
    def from_sq_dist(self, sq_dist: Tensor) -> Tensor:
        """Return the kernel values at squared distances."""
        sigmas: Any = self.sigmas
        weights: Any = self.weights
        if self._trainable:
            return trained_profiles.gaussians(sq_dist, sigmas, weights)
        parts = zip(sigmas, weights, strict=True)
        return torch.stack([weight * profiles.gaussian(sq_dist, sigma) for sigma, weight in parts]).sum(0)


class RationalQuadraticKernel(Kernel):
    r"""Rational quadratic kernel, with values in (0, 1].

    .. math:: k(a, b) = \Bigl(1 + \frac{\lVert a - b \rVert^2}{2 \alpha \ell^2}\Bigr)^{-\alpha}

    The inverse multiquadric kernel :math:`C / (C + \lVert a - b \rVert^2)` of autoencoders is this kernel with
    `alpha=1` and `length=(C / 2) ** 0.5`.

    Args:
        alpha: shape parameter, from 1e-30 to 1e30. Small values give heavy tails. As `alpha -> inf`, the kernel becomes
            the Gaussian kernel with `sigma=length`.
        length: length scale :math:`\ell`, in the units of the scores, from 1e-30 to 1e30. It scales distances
            as the `sigma` of :class:`RBFKernel` does. The papers have no length scale, which is the default of 1.
        trainable: whether to train both, see :class:`Kernel`.

    Raises:
        TypeError: if an argument is not a real number, or `trainable` is not a bool.
        ValueError: if an argument is out of range.

    Example:
        >>> RationalQuadraticKernel(alpha=0.5)(torch.zeros(1, 3), torch.ones(1, 3))
        tensor([[0.5000]])
        >>> kernel = RationalQuadraticKernel(alpha=0.5, length=10)
        >>> kernel(torch.zeros(1, 3), 10 * torch.ones(1, 3))
        tensor([[0.5000]])

    References:
        Binkowski et al. (2018); Wang et al. (2019), Section 4.1. Rasmussen and Williams (2006), Eq. 4.19, have the
        length scale.
    """

    _hyperparameters = ("alpha", "length")

    def __init__(self, alpha: float = 1.0, length: float = 1.0, *, trainable: bool = False) -> None:
        super().__init__()
        self.alpha: float | Tensor = hyperparameters.number("alpha", alpha)
        self.length: float | Tensor = hyperparameters.number("length", length)
        self._make_trainable(trainable)

    def _conditioning(self: Any, like: Tensor) -> Conditioning:
        moderate = self.alpha >= profiles.SMALLEST_SHAPE and is_moderate(self.length)
        return log_convex(0.5 / self.length**2, self.alpha, moderate)

    @with_slope(
        lambda self, sq_dist: profiles.rational_quadratic_with_slope(sq_dist, self.alpha, self.length),
        conditioning=_conditioning,
        steps=lambda self, sq_dist: trained_profiles.rational_quadratic_with_steps(sq_dist, self.alpha, self.length),
    )
    def from_sq_dist(self, sq_dist: Tensor) -> Tensor:
        """Return the kernel values at squared distances."""
        alpha: Any = self.alpha
        length: Any = self.length
        if self._trainable:
            return trained_profiles.rational_quadratic(sq_dist, alpha, length)
        return profiles.rational_quadratic(sq_dist, alpha, length)


class RationalQuadraticMix(Kernel):
    r"""Weighted sum of rational quadratic kernels.

    .. math:: k(a, b) = \sum_i w_i \Bigl(1 + \frac{\lVert a - b \rVert^2}{2 \alpha_i \ell^2}\Bigr)^{-\alpha_i}

    This is the kernel of MMD-rq: a sum, not a mean. The kernel `mix_rq_1dot` of Arbel et al. is
    `RationalQuadraticMix() + LinearKernel()`. The default of their code is `alphas=(0.1, 1, 10)`.

    Args:
        alphas: shape parameters, each from 1e-30 to 1e30.
        weights: one number from 1e-30 to 1e30 for each shape parameter. None gives each kernel the weight 1.
        length: length scale :math:`\ell` of all kernels, in the units of the scores, from 1e-30 to 1e30. For
            several length scales, add up kernels.
        trainable: whether to train shape parameters, weights and the length scale, see :class:`Kernel`.

    Raises:
        TypeError: if `alphas` or `weights` is not a sequence of real numbers, `length` is not a real number, or
            `trainable` is not a bool.
        ValueError: if a sequence is empty, if a number is out of range, or if the lengths of the sequences differ.

    Example:
        >>> RationalQuadraticMix()(torch.zeros(1, 3), torch.ones(1, 3))
        tensor([[2.1477]])

    References:
        Binkowski et al. (2018); Wang et al. (2019), Section 4.1.
    """

    _hyperparameters = ("alphas", "weights", "length")

    def __init__(
        self,
        alphas: Sequence[float] = (0.2, 0.5, 1.0, 2.0, 5.0),
        *,
        weights: Sequence[float] | None = None,
        length: float = 1.0,
        trainable: bool = False,
    ) -> None:
        super().__init__()
        several = hyperparameters.numbers("alphas", alphas)
        self.alphas: tuple[float, ...] | Tensor = several
        self.weights: tuple[float, ...] | Tensor = checks.mixture_weights(weights, len(several))
        self.length: float | Tensor = hyperparameters.number("length", length)
        self._make_trainable(trainable)

    def _value_and_slope(self: Any, sq_dist: Tensor) -> ValueAndSlope:
        parts = zip(self.alphas, self.weights, strict=True)
        return weighted_sum(
            (weight, profiles.rational_quadratic_with_slope(sq_dist, alpha, self.length)) for alpha, weight in parts
        )

    def _conditioning(self: Any, like: Tensor) -> Conditioning:
        moderate = min(self.alphas) >= profiles.SMALLEST_SHAPE and is_moderate(self.length, *self.weights)
        return log_convex(0.5 / self.length**2, max(self.alphas), moderate)

    @with_slope(
        _value_and_slope,
        conditioning=_conditioning,
        steps=lambda self, sq_dist: trained_profiles.rational_quadratics_with_steps(
            sq_dist, self.alphas, self.weights, self.length
        ),
    )
    def from_sq_dist(self, sq_dist: Tensor) -> Tensor:
        """Return the kernel values at squared distances."""
        alphas: Any = self.alphas
        weights: Any = self.weights
        length: Any = self.length
        if self._trainable:
            return trained_profiles.rational_quadratics(sq_dist, alphas, weights, length)
        parts = zip(alphas, weights, strict=True)
        values = [weight * profiles.rational_quadratic(sq_dist, alpha, length) for alpha, weight in parts]
        return torch.stack(values).sum(0)


class EnergyKernel(Kernel):
    r"""Minus the Euclidean distance, :math:`k(a, b) = -\lVert a - b \rVert`. MMD^2 is then the energy distance.

    With this kernel, the attractive loss is the loss of the critic of a Cramer GAN. The reference point of that critic
    cancels in MMD^2. For coincident scores, the gradient of the distance is set to zero.

    Example:
        >>> EnergyKernel()(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]))
        tensor([[-5.]])

    References:
        Szekely and Rizzo (2013); `distance` in the code of Binkowski et al. (2018), which adds 1e-5 under each root.
    """

    _is_smooth = False
    _is_positive_definite = False

    @with_slope(
        lambda self, sq_dist: profiles.negative_distance_with_slope(sq_dist),
        conditioning=lambda self, _: Conditioning(math.inf, 0.5, half_peak=math.inf),
    )
    def from_sq_dist(self, sq_dist: Tensor) -> Tensor:
        """Return the kernel values at squared distances."""
        return profiles.negative_distance(sq_dist)
