"""The inverse multiquadric kernel."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.kernels import hyperparameters, profiles, trained_profiles
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.contract import Conditioning, is_moderate, log_convex, with_slope


class InverseMultiquadricKernel(Kernel):
    r"""Inverse multiquadric kernel, with values in (0, 1].

    .. math:: k(a, b) = (1 + \lVert a - b \rVert^2 / c^2)^\beta, \qquad \beta < 0

    It is the rational quadratic kernel with :math:`\alpha = -\beta` and :math:`2 \alpha \ell^2 = c^2`, in the
    parameters of the literature on Stein discrepancies and autoencoders. :math:`C / (C + \lVert a - b \rVert^2)` is
    `InverseMultiquadricKernel(c=C**0.5, beta=-1)`. The form :math:`(c^2 + \lVert a - b \rVert^2)^\beta` is
    `c ** (2 * beta)` times this kernel.

    Args:
        c: distance at which the base is 2, in the units of the scores, from 1e-30 to 1e30.
        beta: exponent, from -1e30 to -1e-30.
        trainable: whether to train `c`, but not the exponent, see :class:`Kernel`.

    Raises:
        TypeError: if an argument is not a real number, or `trainable` is not a bool.
        ValueError: if an argument is out of range.

    Example:
        >>> InverseMultiquadricKernel(c=5.0)(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]))
        tensor([[0.7071]])

    References:
        Gorham and Mackey (2017); Tolstikhin et al. (2018), Section 4, for `beta=-1`.
    """

    _hyperparameters = ("c", "beta")

    def __init__(self, c: float = 1.0, beta: float = -0.5, *, trainable: bool = False) -> None:
        super().__init__()
        self.c: float | Tensor = hyperparameters.number("c", c)
        self.beta = self._converted_exponent(beta)
        self._make_trainable(trainable, "c")

    def _converted(self, name: str, value: object) -> float | tuple[float, ...]:
        return self._converted_exponent(value) if name == "beta" else super()._converted(name, value)

    def _converted_exponent(self, value: object) -> float:
        number = checks.finite_number("beta", value)
        lowest, highest = checks.RANGE
        if not -highest <= number <= -lowest:
            raise ValueError(
                f"beta: expected a number between {-highest:g} and {-lowest:g}, got {checks.described(value)}"
            )
        return number

    @property
    def _length(self) -> Any:  # noqa: ANN401
        """The length scale of the rational quadratic kernel."""
        return _length(self.c, self.beta)

    def _conditioning(self: Any, like: Tensor) -> Conditioning:
        moderate = -self.beta >= profiles.SMALLEST_SHAPE and is_moderate(_length(self.c, self.beta))
        return log_convex(-self.beta / self.c**2, -self.beta, moderate)

    @with_slope(
        lambda self, sq_dist: profiles.rational_quadratic_with_slope(sq_dist, -self.beta, self._length),
        conditioning=_conditioning,
        steps=lambda self, sq_dist: trained_profiles.inverse_multiquadric_with_steps(sq_dist, self.c, self.beta),
    )
    def from_sq_dist(self, sq_dist: Tensor) -> Tensor:
        """Return the kernel values at squared distances."""
        c: Any = self.c
        if self._trainable:
            return trained_profiles.inverse_multiquadric(sq_dist, c, self.beta)
        return profiles.rational_quadratic(sq_dist, -self.beta, self._length)


def _length(c: Any, beta: float) -> Any:  # noqa: ANN401
    return c / math.sqrt(-2 * beta)
