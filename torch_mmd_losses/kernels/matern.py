"""Kernels that decay exponentially with the distance: the Laplace kernel and the Matern kernels."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.kernels import hyperparameters, matern_profiles, trained_profiles
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.contract import Conditioning, is_moderate, log_convex, with_slope

ORDERS = (0.5, 1.5, 2.5)
"""The orders of Matern kernels with a closed form: half-integers."""


class LaplaceKernel(Kernel):
    r"""Laplace kernel of the Euclidean distance, with values in (0, 1].

    .. math:: k(a, b) = \exp(-\max(\lVert a - b \rVert, floor) / scale)

    The kernel of Inductive Moment Matching and of drifting models. For the 1-norm, see :class:`L1LaplaceKernel`. The
    kernel has a cusp at distance zero: for coincident scores, the gradient of the distance is set to zero. Functions
    that need the second derivative there (:class:`ScaledMMDLoss`, :func:`gradient_constrained_mmd2`) refuse the kernel.
    Second derivatives of MMD^2 are those of the pairs that do not coincide.

    Args:
        scale: scale of the distance, in the units of the scores, from 1e-30 to 1e30.
        floor: distances below it count as this distance and have no gradient; 0, or from 1e-30 to `scale`. With a
            floor, a score has the distance `floor` from itself as well, as in code that takes
            `sqrt(max(sq_dist, floor ** 2))`. The kernel is then positive definite only approximately.
        trainable: whether to train the scale, but not the floor, see :class:`Kernel`.

    Raises:
        TypeError: if an argument is not a real number, or `trainable` is not a bool.
        ValueError: if an argument is out of range.

    Example:
        >>> LaplaceKernel(scale=5.0)(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]))
        tensor([[0.3679]])

    References:
        Zhou et al. (2025) and Deng et al. (2026), who minimise MMD^2 and follow a drift with this kernel.
    """

    _hyperparameters = ("scale", "floor")
    _is_smooth = False

    def __init__(self, scale: float = 1.0, *, floor: float = 0.0, trainable: bool = False) -> None:
        super().__init__()
        self.scale: float | Tensor = hyperparameters.number("scale", scale)
        self.floor = self._converted_floor(floor)
        self._check(dict(self._numbers()))
        self._make_trainable(trainable, "scale")

    def _converted(self, name: str, value: object) -> float | tuple[float, ...]:
        return self._converted_floor(value) if name == "floor" else super()._converted(name, value)

    def _converted_floor(self, value: object) -> float:
        # A positive number that is too small for a float is not zero.
        return checks.hyperparameter("floor", value) if checks.finite_number("floor", value) or value != 0 else 0.0

    def _check(self, values: dict[str, tuple[float, ...]]) -> None:
        if "scale" not in values:  # it is trained, and may fall below the floor
            return
        scale, floor = values["scale"][0], values["floor"][0]
        if floor > scale:
            raise ValueError(f"scale, floor: expected floor <= scale, got {scale} and {floor}")

    @with_slope(
        lambda self, sq_dist: matern_profiles.laplace_with_slope(sq_dist, self.scale, self.floor),
        # The elasticity grows with the distance, but then so does the error of the exponential itself.
        conditioning=lambda self, _: Conditioning(
            math.inf,
            1.0,
            is_moderate(self.scale, self.floor or 1.0),
            matern_profiles.laplace_half_peak(self.scale, self.floor),
        ),
        in_float64=lambda self, sq_dist: matern_profiles.laplace_with_slope(
            sq_dist, self.scale, self.floor, torch.float64
        ),
        overwriting=lambda self, sq_dist: matern_profiles.laplace_overwriting(sq_dist, self.scale, self.floor),
        steps=lambda self, sq_dist: trained_profiles.laplace_with_steps(sq_dist, self.scale, self.floor),
    )
    def from_sq_dist(self, sq_dist: Tensor) -> Tensor:
        """Return the kernel values at squared distances."""
        return matern_profiles.laplace(sq_dist, self.scale, self.floor)


class MaternKernel(Kernel):
    r"""Matern kernel of order 1/2, 3/2 or 5/2, with values in (0, 1].

    With :math:`u = \sqrt{2 \nu} \, \lVert a - b \rVert / \ell`,

    .. math::

        k_{1/2}(a, b) = e^{-u}, \qquad
        k_{3/2}(a, b) = (1 + u) e^{-u}, \qquad
        k_{5/2}(a, b) = (1 + u + u^2 / 3) e^{-u}.

    The factor :math:`\sqrt{2 \nu}` is that of Rasmussen and Williams and of scikit-learn: the larger :math:`\nu`, the
    closer the kernel is to the Gaussian kernel with `sigma=length`. Without the factor, the kernel of order 3/2 is
    :math:`(1 + r / \tau) e^{-r / \tau}`, which is `MaternKernel(1.5, length=3**0.5 * tau)`. Up to the factor
    :math:`\tau^2`, its gradient is the kernel `LaplaceKernel(tau)` times the difference of the scores, so a drift with
    a Laplace kernel that is not normalised follows the gradient of MMD^2 with this Matern kernel.

    Functions in the space of the kernel of order :math:`\nu` are about :math:`\nu` times differentiable. Order 1/2 is
    the :class:`LaplaceKernel` with `scale=length`, with the same treatment of coincident scores.

    Args:
        nu: order :math:`\nu`: 0.5, 1.5 or 2.5.
        length: length scale :math:`\ell`, in the units of the scores, from 1e-30 to 1e30.
        trainable: whether to train the length scale, but not the order, see :class:`Kernel`.

    Raises:
        TypeError: if an argument is not a real number, or `trainable` is not a bool.
        ValueError: if an argument is out of range.

    Example:
        >>> MaternKernel(nu=2.5, length=2.0)(torch.zeros(1, 3), torch.ones(1, 3))
        tensor([[0.6037]])

    References:
        Rasmussen and Williams (2006), Eq. 4.16 and 4.17.
    """

    _hyperparameters = ("nu", "length")

    def __init__(self, nu: float = 1.5, length: float = 1.0, *, trainable: bool = False) -> None:
        super().__init__()
        self.nu = self._converted_order(nu)
        self.length: float | Tensor = hyperparameters.number("length", length)
        self._make_trainable(trainable, "length")

    @property
    def _is_smooth(self) -> bool:  # type: ignore[override]
        return self.nu > ORDERS[0]

    def _converted(self, name: str, value: object) -> float | tuple[float, ...]:
        return self._converted_order(value) if name == "nu" else super()._converted(name, value)

    def _converted_order(self, value: object) -> float:
        number = checks.finite_number("nu", value)
        if number not in ORDERS:
            raise ValueError(f"nu: expected 0.5, 1.5 or 2.5, got {checks.described(value)}")
        return number

    def _overwriting(self, sq_dist: Tensor) -> Tensor:
        if self.nu == 0.5:
            return matern_profiles.laplace_overwriting(sq_dist, self.length, 0.0)
        return matern_profiles.matern_with_slope(sq_dist, self.nu, self.length).value

    def _conditioning(self: Any, like: Tensor) -> Conditioning:
        moderate = is_moderate(self.length)
        if self.nu == 0.5:
            return Conditioning(math.inf, 1.0, moderate, matern_profiles.laplace_half_peak(self.length, 0.0))
        if self.nu == 1.5:  # its slope still has a root at zero, though its value does not
            return Conditioning(math.inf, 1.0, moderate, matern_profiles.matern_32_half_peak(self.length))
        return log_convex(2.5 / self.length**2, is_moderate=moderate)

    @with_slope(
        lambda self, sq_dist: matern_profiles.matern_with_slope(sq_dist, self.nu, self.length),
        conditioning=_conditioning,
        in_float64=lambda self, sq_dist: matern_profiles.matern_with_slope(
            sq_dist, self.nu, self.length, torch.float64
        ),
        overwriting=_overwriting,
        steps=lambda self, sq_dist: trained_profiles.matern_with_steps(sq_dist, self.nu, self.length),
    )
    def from_sq_dist(self, sq_dist: Tensor) -> Tensor:
        """Return the kernel values at squared distances."""
        return matern_profiles.matern(sq_dist, self.nu, self.length)
