"""The kernels of the papers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.distances import Pairs
from torch_mmd_losses.kernels import profiles
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.summands import UNBOUNDED, Limits, Mapped, weighted_sum
from torch_mmd_losses.types import Bounds, Group


class RBFKernel(Kernel):
    r"""Gaussian kernel, :math:`k(a, b) = \exp(-\lVert a - b \rVert^2 / (2 \sigma^2))`, with values in (0, 1].

    Args:
        sigma: bandwidth, in the units of the scores, > 0. Other libraries call :math:`\sigma^2`, :math:`2 \sigma^2`
            or :math:`\gamma = 1 / (2 \sigma^2)` the bandwidth.

    Raises:
        TypeError: if `sigma` is no real number.
        ValueError: if `sigma` is not positive and finite.

    Example:
        >>> RBFKernel(sigma=2.0)(torch.zeros(1, 3), torch.ones(1, 3))
        tensor([[0.6873]])

    References:
        Wang et al. (2019), Section 4.1.
    """

    _hyperparameters = ("sigma",)

    def __init__(self, sigma: float = 1.0) -> None:
        super().__init__()
        self.sigma = checks.positive_number("sigma", sigma)

    def from_sq_dist(self, sq_dist: Tensor) -> Tensor:
        """Map squared distances to kernel values."""
        return profiles.gaussian_value(sq_dist, self.sigma)

    def _map(self, sq_dist: Tensor) -> Mapped:
        return profiles.gaussian(sq_dist, self.sigma)

    @property
    def _exponent(self) -> float:
        return profiles.gaussian_exponent(self.sigma)


class RBFMix(Kernel):
    r"""Weighted sum of Gaussian kernels, :math:`k(a, b) = \sum_i w_i \exp(-\lVert a - b \rVert^2 / (2 \sigma_i^2))`.

    The papers add the kernels up, they do not average them: with the default weights `k(a, a)` is 5.

    Args:
        sigmas: bandwidths, each > 0. The default are those of Wang et al. (2019), Section 5.1; Li et al. (2017) use
            (1, 2, 4, 8, 16).
        weights: one number > 0 for each bandwidth; None gives each the weight 1.

    Raises:
        TypeError: if `sigmas` or `weights` is no sequence of real numbers.
        ValueError: if one of them is empty, not positive or not finite, or if their lengths differ.

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
    ) -> None:
        super().__init__()
        self.sigmas = checks.positive_numbers("sigmas", sigmas)
        self.weights = checks.mixture_weights(weights, len(self.sigmas))

    def from_sq_dist(self, sq_dist: Tensor) -> Tensor:
        """Map squared distances to kernel values."""
        parts = zip(self.sigmas, self.weights, strict=True)
        return torch.stack([weight * profiles.gaussian_value(sq_dist, sigma) for sigma, weight in parts]).sum(0)

    def _map(self, sq_dist: Tensor) -> Mapped:
        return weighted_sum(profiles.gaussians(sq_dist, self.sigmas, self.weights))


class RationalQuadraticKernel(Kernel):
    r"""Rational quadratic kernel, :math:`k(a, b) = (1 + \lVert a - b \rVert^2 / (2 \alpha))^{-\alpha}`, in (0, 1].

    Args:
        alpha: shape, > 0: small values have heavy tails, and `alpha -> inf` is the Gaussian kernel with `sigma = 1`.

    Raises:
        TypeError: if `alpha` is no real number.
        ValueError: if `alpha` is not positive and finite.

    Example:
        >>> RationalQuadraticKernel(alpha=0.5)(torch.zeros(1, 3), torch.ones(1, 3))
        tensor([[0.5000]])

    References:
        Binkowski et al. (2018); Wang et al. (2019), Section 4.1.
    """

    _hyperparameters = ("alpha",)

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = checks.positive_number("alpha", alpha)

    def from_sq_dist(self, sq_dist: Tensor) -> Tensor:
        """Map squared distances to kernel values."""
        return profiles.rational_quadratic_value(sq_dist, self.alpha)

    def _map(self, sq_dist: Tensor) -> Mapped:
        return profiles.rational_quadratic(sq_dist, self.alpha)


class RationalQuadraticMix(Kernel):
    r"""Weighted sum of rational quadratic kernels.

    .. math:: k(a, b) = \sum_i w_i (1 + \lVert a - b \rVert^2 / (2 \alpha_i))^{-\alpha_i}

    The kernel of MMD-rq, as a sum, not a mean. The `mix_rq_1dot` of Arbel et al. is
    `RationalQuadraticMix() + LinearKernel()`; their code's own default is `alphas=(0.1, 1, 10)`.

    Args:
        alphas: shapes, each > 0.
        weights: one number > 0 for each shape; None gives each the weight 1.

    Raises:
        TypeError: if `alphas` or `weights` is no sequence of real numbers.
        ValueError: if one of them is empty, not positive or not finite, or if their lengths differ.

    Example:
        >>> RationalQuadraticMix()(torch.zeros(1, 3), torch.ones(1, 3))
        tensor([[2.1477]])

    References:
        Binkowski et al. (2018); Wang et al. (2019), Section 4.1.
    """

    _hyperparameters = ("alphas", "weights")

    def __init__(
        self, alphas: Sequence[float] = (0.2, 0.5, 1.0, 2.0, 5.0), *, weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.alphas = checks.positive_numbers("alphas", alphas)
        self.weights = checks.mixture_weights(weights, len(self.alphas))

    def from_sq_dist(self, sq_dist: Tensor) -> Tensor:
        """Map squared distances to kernel values."""
        parts = zip(self.alphas, self.weights, strict=True)
        return torch.stack([weight * profiles.rational_quadratic_value(sq_dist, alpha) for alpha, weight in parts]).sum(
            0
        )

    def _map(self, sq_dist: Tensor) -> Mapped:
        parts = zip(self.alphas, self.weights, strict=True)
        return weighted_sum((weight, profiles.rational_quadratic(sq_dist, alpha)) for alpha, weight in parts)


class RBFBKernel(Kernel):
    r"""Gaussian kernel whose squared distances are bounded in the discriminator's loss (RBF-B).

    The bounds take the gradient away from pairs that are far enough apart, or close enough together, already, so that
    an over-confident discriminator does not saturate the kernel. In :meth:`MMDLoss.discriminator` the kernel is
    :math:`\exp(-q / (2 \sigma^2))` with, for :math:`e = \lVert a - b \rVert^2`,

    .. math::

        \lambda < 0 \text{ (Eq. 6)}: \quad & q = \max(e, lower) \text{ for real-real and fake-fake pairs},
            \quad q = \min(e, upper) \text{ for real-fake pairs};

        \lambda \ge 0 \text{ (Eq. 7)}: \quad & q = \max(e, lower) \text{ for fake-fake pairs},
            \quad q = \min(e, upper) \text{ for real-real pairs}, \quad q = e \text{ for real-fake pairs}.

    Everywhere else (the generator's loss, :func:`mmd2`, the Gram matrix) it is the plain Gaussian kernel, so that what
    the generator minimises remains a metric. At a bound the full gradient passes.

    Args:
        sigma: bandwidth, in the units of the scores, > 0.
        lower: lower bound of the **squared** distance, > 0.
        upper: upper bound of the **squared** distance, > `lower`.

    Raises:
        TypeError: if an argument is no real number.
        ValueError: if an argument is not positive and finite, or `lower >= upper`.

    Example:
        >>> RBFBKernel(sigma=1.0, lower=0.25, upper=4.0)
        RBFBKernel(sigma=1.0, lower=0.25, upper=4.0)

    References:
        Wang et al. (2019), Eq. 6 and 7. The authors' code at its last commit leaves the cross term unbounded for
        `lambda_ < 0` too; this library follows the paper.
    """

    _hyperparameters = ("sigma", "lower", "upper")

    def __init__(self, sigma: float = 1.0, lower: float = 0.25, upper: float = 4.0) -> None:
        super().__init__()
        self.sigma = checks.positive_number("sigma", sigma)
        self.lower = checks.positive_number("lower", lower)
        self.upper = checks.positive_number("upper", upper)
        self._check(dict(self._values()))

    def _check(self, values: dict[str, tuple[float, ...]]) -> None:
        lower, upper = values["lower"][0], values["upper"][0]
        if lower >= upper:
            raise ValueError(f"lower, upper: expected lower < upper, got {lower} and {upper}")

    def from_sq_dist(self, sq_dist: Tensor) -> Tensor:
        """Map squared distances to plain, unbounded kernel values."""
        return profiles.gaussian_value(sq_dist, self.sigma)

    def _map(self, sq_dist: Tensor) -> Mapped:
        return profiles.gaussian(sq_dist, self.sigma)

    @property
    def _exponent(self) -> float:
        return profiles.gaussian_exponent(self.sigma)

    def _limits(self, group: Group, bounds: Bounds) -> Limits:
        if self._own_forward or bounds == "none" or (bounds == "repulsive" and group == "cross"):
            return UNBOUNDED
        keeps_apart = group == "cross" if bounds == "attractive" else group == "real"
        return (0.0, self.upper) if keeps_apart else (self.lower, math.inf)

    def _evaluate(self, pairs: Pairs, bounds: Bounds = "none") -> Tensor:
        lowest, highest = self._limits(pairs.group, bounds)
        if (lowest, highest) == UNBOUNDED:
            return self.from_sq_dist(pairs.sq_dist)
        # At a bound the whole gradient passes, as in the authors' framework; PyTorch's clamp stopped it from 2.14 on.
        outside = (pairs.sq_dist < lowest) | (pairs.sq_dist > highest)
        return self.from_sq_dist(torch.where(outside, pairs.sq_dist.detach().clamp(lowest, highest), pairs.sq_dist))

    def _saturated(self, pairs: Pairs, bounds: Bounds) -> Tensor:
        lowest, highest = self._limits(pairs.group, bounds)
        outside = (pairs.sq_dist < lowest) | (pairs.sq_dist > highest)
        return outside | super()._saturated(pairs, bounds)


class LinearKernel(Kernel):
    r"""Inner product, :math:`k(a, b) = \langle a, b \rangle`: MMD is the distance between the mean scores.

    Means over pairs are taken in closed form, in float64 and without a Gram matrix.

    Example:
        >>> LinearKernel()(torch.ones(2, 3), torch.ones(1, 3))
        tensor([[3.],
                [3.]])

    References:
        Arbel et al. (2018), Section 4: the kernel of the (scaled) Wasserstein loss.
    """

    @property
    def _radial(self) -> bool:
        return False

    def _evaluate(self, pairs: Pairs, bounds: Bounds = "none") -> Tensor:
        # Float64 before anything is multiplied: for scores with a large mean the products are far larger than MMD^2.
        return pairs.a.precise @ pairs.b.precise.T

    @property
    def _closed_form(self) -> bool:
        return not self._own_forward

    def _total(self, pairs: Pairs, bounds: Bounds = "none") -> Tensor:
        if self._own_forward:
            return super()._total(pairs, bounds)
        a, b = pairs.a.precise, pairs.b.precise
        total = a.sum(0) @ b.sum(0)
        return total - (a * b[pairs.shift : pairs.shift + len(a)]).sum() if pairs.distinct else total


class PolynomialKernel(Kernel):
    r"""Polynomial kernel, :math:`k(a, b) = (\langle a, b \rangle / d + offset)^{degree}`, with :math:`d` dimensions.

    With the defaults and features of an Inception network, :func:`mmd2` is the Kernel Inception Distance (KID). It sees
    moments up to its degree only: distributions that agree in them are at distance zero.

    Args:
        degree: whole number >= 1.
        offset: number > 0: how much terms of low degree count.

    Raises:
        TypeError: if `degree` is no integer or `offset` no real number.
        ValueError: if `degree` is below 1, or `offset` not positive and finite.

    Example:
        >>> PolynomialKernel()(torch.ones(2, 3), torch.ones(1, 3))
        tensor([[8.],
                [8.]])

    References:
        Binkowski et al. (2018), Section 4.
    """

    _hyperparameters = ("degree", "offset")

    def __init__(self, degree: int = 3, offset: float = 1.0) -> None:
        super().__init__()
        self.degree = checks.whole_number("degree", degree, least=1)
        self.offset = checks.positive_number("offset", offset)

    @property
    def _radial(self) -> bool:
        return False

    def _evaluate(self, pairs: Pairs, bounds: Bounds = "none") -> Tensor:
        a, b = pairs.a.scores, pairs.b.scores
        return (a @ b.T / a.shape[1] + self.offset) ** self.degree

    def _converted(self, name: str, value: object) -> float | tuple[float, ...]:
        return checks.whole_number(name, value, least=1) if name == "degree" else super()._converted(name, value)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over degree and offset, as for every kernel; the state holds the degree as a float."""
        super().set_extra_state(state)
        self.degree = int(self.degree)


class EnergyKernel(Kernel):
    r"""Minus the Euclidean distance, :math:`k(a, b) = -\lVert a - b \rVert`: MMD^2 is the energy distance.

    With this kernel the attractive loss is the critic of a Cramer GAN without its shift to a reference point, which
    cancels in MMD^2. The gradient of the distance of coincident scores is taken as zero.

    Example:
        >>> EnergyKernel()(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]))
        tensor([[-5.]])

    References:
        Szekely and Rizzo (2013); `distance` in the code of Binkowski et al. (2018), which adds 1e-5 under each root.
    """

    def from_sq_dist(self, sq_dist: Tensor) -> Tensor:
        """Map squared distances to minus distances."""
        apart = sq_dist > 0
        return -torch.where(apart, torch.where(apart, sq_dist, 1.0).sqrt(), 0.0)

    def _map(self, sq_dist: Tensor) -> Mapped:
        inverse = sq_dist.rsqrt().masked_fill_(sq_dist == 0, 0)
        return Mapped(sq_dist.mul_(inverse).neg_(), inverse, -0.5)
