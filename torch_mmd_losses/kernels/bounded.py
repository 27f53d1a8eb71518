"""A Gaussian kernel with bounds on the squared distance."""

from __future__ import annotations

import math

from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.kernels import profiles
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.contract import UNBOUNDED, Limits, is_moderate, log_convex, with_slope
from torch_mmd_losses.types import Bounds, Group

LARGEST_FLOAT32 = 2.0**100
"""Bound up to which squared distances fit into float32, with some room."""

SQUARED_RANGE = (1e-64, 1e64)
"""The range of the bounds: squares of all bandwidths, and some way beyond."""


class RBFBKernel(Kernel):
    r"""Gaussian kernel whose squared distances are bounded in the discriminator's loss (RBF-B).

    The bounds zero the gradient of pairs that are already far enough apart or close enough together. This keeps the
    discriminator from saturating the kernel. In :meth:`MMDLoss.discriminator` the kernel is
    :math:`\exp(-q / (2 \sigma^2))`, where for :math:`e = \lVert a - b \rVert^2`

    .. math::

        \lambda < 0 \text{ (Eq. 6)}: \quad & q = \max(e, lower) \text{ for real-real and fake-fake pairs},
            \quad q = \min(e, upper) \text{ for real-fake pairs};

        \lambda \ge 0 \text{ (Eq. 7)}: \quad & q = \max(e, lower) \text{ for fake-fake pairs},
            \quad q = \min(e, upper) \text{ for real-real pairs}, \quad q = e \text{ for real-fake pairs}.

    Everywhere else (the generator's loss, :func:`mmd2`, the Gram matrix) the kernel is the plain Gaussian kernel, so
    the generator still minimises a metric. A pair whose distance equals a bound keeps its full gradient.

    Args:
        sigma: bandwidth, in the units of the scores, from 1e-30 to 1e30.
        lower: lower bound of the **squared** distance, from 1e-64 to 1e64.
        upper: upper bound of the **squared** distance, > `lower`, up to 1e64.

    Raises:
        TypeError: if an argument is not a real number.
        ValueError: if an argument is out of range, or `lower >= upper`.

    Example:
        >>> RBFBKernel(sigma=1.0, lower=0.25, upper=4.0)
        RBFBKernel(sigma=1.0, lower=0.25, upper=4.0)

    References:
        Wang et al. (2019), Eq. 6 and 7. In the last commit of the authors' code, the cross term is not bounded for
        `lambda_ < 0` either. This library follows the paper, which bounds it.
    """

    _hyperparameters = ("sigma", "lower", "upper")

    def __init__(self, sigma: float = 1.0, lower: float = 0.25, upper: float = 4.0) -> None:
        super().__init__()
        self.sigma = checks.hyperparameter("sigma", sigma)
        self.lower = checks.hyperparameter("lower", lower, SQUARED_RANGE)
        self.upper = checks.hyperparameter("upper", upper, SQUARED_RANGE)
        self._check(dict(self._numbers()))

    def _converted(self, name: str, value: object) -> float | tuple[float, ...]:
        return checks.hyperparameter(name, value, checks.RANGE if name == "sigma" else SQUARED_RANGE)

    def _check(self, values: dict[str, tuple[float, ...]]) -> None:
        lower, upper = values["lower"][0], values["upper"][0]
        if lower >= upper:
            raise ValueError(f"lower, upper: expected lower < upper, got {lower} and {upper}")

    @with_slope(
        lambda self, sq_dist: profiles.gaussian_with_slope(sq_dist, self.sigma),
        conditioning=lambda self, _: log_convex(
            0.5 / self.sigma**2, is_moderate=is_moderate(self.sigma) and self.upper <= LARGEST_FLOAT32
        ),
        exponent=lambda self: profiles.gaussian_exponent(self.sigma),
    )
    def from_sq_dist(self, sq_dist: Tensor) -> Tensor:
        """Return the kernel values at squared distances, without the bounds."""
        return profiles.gaussian(sq_dist, self.sigma)

    def _limits(self, group: Group, bounds: Bounds) -> Limits:
        if bounds == "none" or (bounds == "repulsive" and group == "cross"):
            return UNBOUNDED
        moved_apart = "cross" if bounds == "attractive" else "real"
        return (0.0, self.upper) if group == moved_apart else (self.lower, math.inf)
