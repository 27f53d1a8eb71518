"""Sharp kernels of kernels of the distance, as logarithms and as values.

The sharp kernel of `k` is the function of the distance whose gradient by `x` is `k(x, y) (y - x)`. It is half the
integral of `k` over all larger squared distances, so its slope by the squared distance is `-k / 2`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from torch_mmd_losses.fields.log_kernels import (
    Log,
    LogKernel,
    Number,
    definition_of,
    gaussian,
    log_of,
    plus,
    polynomial_times_exponential,
    rational_quadratic,
)
from torch_mmd_losses.hand_written_gradients import reverse_mode_only
from torch_mmd_losses.kernels import matern_profiles, profiles
from torch_mmd_losses.kernels.base import Kernel, _Product
from torch_mmd_losses.kernels.bounded import RBFBKernel
from torch_mmd_losses.kernels.contract import ValueAndSlope
from torch_mmd_losses.kernels.inverse_multiquadric import InverseMultiquadricKernel
from torch_mmd_losses.kernels.matern import LaplaceKernel, MaternKernel
from torch_mmd_losses.kernels.matern_profiles import Scalar
from torch_mmd_losses.kernels.radial import RationalQuadraticKernel, RationalQuadraticMix, RBFKernel, RBFMix
from torch_mmd_losses.kernels.summands import RadialSummand, Summand, by_kind, weighted_sum


class SharpPart(NamedTuple):
    """A sharp kernel that is not a sum.

    Attributes:
        log_peak: the logarithm of its peak.
        log: the logarithm of its values, relative to the peak.
        with_slope: returns its values relative to the peak, with their slopes, without a graph, for a kernel that is
            not trained. It may overwrite its argument.
    """

    log_peak: Number
    log: Log
    with_slope: Callable[[Tensor], ValueAndSlope]


class SharpKernel:
    """The sharp kernel of a sum.

    Args:
        parts: the sharp kernels of its summands.
        summands: the summands.
    """

    def __init__(self, parts: Sequence[SharpPart], summands: Sequence[RadialSummand]) -> None:
        self.parts = parts
        self.log = LogKernel([plus(part.log, part.log_peak) for part in parts], summands)

    def with_slope(self, sq_dist: Tensor) -> ValueAndSlope:
        """Return a multiple of the values, with slopes, see :attr:`SharpPart.with_slope`."""
        if len(self.parts) == 1:
            return self.parts[0].with_slope(sq_dist)
        highest = max(float(part.log_peak) for part in self.parts)
        return weighted_sum(
            (math.exp(float(part.log_peak) - highest), part.with_slope(sq_dist.clone())) for part in self.parts
        )


def sharp_kernel(summands: Sequence[Summand]) -> SharpKernel:
    """Return the sharp kernel of a kernel, or raise."""
    radial, of_columns = by_kind(summands)
    if of_columns:
        raise TypeError(
            "kernel: expected a kernel of the distance in all columns for normalise='sharp', got a kernel on some "
            "columns, kernel.on(...), which has no sharp kernel"
        )
    parts: list[SharpPart] = []
    for summand in radial:
        known = _SHARP.get(definition_of(summand))
        if known is None or (isinstance(summand.kernel, LaplaceKernel) and summand.kernel.floor):
            named = type(summand.kernel).__name__ if known is None else repr(summand.kernel)
            if isinstance(summand.kernel, _Product):
                named = "a product of kernels"
            raise TypeError(
                "kernel: expected an RBFKernel, RBFMix, RBFBKernel, LaplaceKernel without a floor, MaternKernel, "
                "RationalQuadraticKernel, RationalQuadraticMix or InverseMultiquadricKernel, or sums and multiples of "
                f"them, for normalise='sharp', got {named}, whose sharp kernel is unknown"
            )
        parts += [_times(math.log(summand.factor), part) for part in known(summand.kernel)]
    return SharpKernel(parts, radial)


def _times(log_factor: Number, part: SharpPart) -> SharpPart:
    return SharpPart(part.log_peak + log_factor, part.log, part.with_slope)


def _of_gaussian(sigma: Scalar) -> SharpPart:
    return SharpPart(2 * log_of(sigma), gaussian(sigma), partial(profiles.gaussian_with_slope, sigma=sigma))


def _of_matern(nu: float, length: Scalar) -> SharpPart:
    """Return the sharp kernel, a Matern kernel of the next order with the same decay."""
    decay = (2 * nu) ** 0.5 / length
    coefficients, with_slope = {
        0.5: ((1.0,), lambda sq_dist: matern_profiles.matern_32_with_slope(sq_dist, 3**0.5 / decay)),
        1.5: ((1.0, 1 / 3), lambda sq_dist: matern_profiles.matern_52_with_slope(sq_dist, 5**0.5 / decay)),
        2.5: ((1.0, 0.4, 1 / 15), lambda sq_dist: matern_profiles.matern_72_with_slope(sq_dist, 7**0.5 / decay)),
    }[nu]
    log_peak = math.log(2 * nu) - 2 * log_of(decay)
    return SharpPart(log_peak, polynomial_times_exponential(decay, coefficients), with_slope)


def _of_rational_quadratic(kernel: Kernel, alpha: Scalar, length: Scalar) -> SharpPart:
    if _is_known(alpha) and alpha <= 1:
        raise ValueError(
            "kernel: expected a rational quadratic with alpha > 1, or an inverse multiquadric with beta < -1, for "
            f"normalise='sharp', since the sharp kernel is infinite otherwise, got {kernel!r}"
        )
    # (1 + s / c) ** (1 - alpha) is the rational quadratic whose c is the same.
    lower = alpha - 1
    own = length * (alpha / lower) ** 0.5
    with_slope = partial(profiles.rational_quadratic_with_slope, alpha=lower, length=own)
    return SharpPart(log_of(alpha / lower) + 2 * log_of(length), rational_quadratic(lower, own), with_slope)


def _is_known(number: Number) -> bool:
    """Return whether the host knows a number without waiting for it."""
    return not isinstance(number, Tensor) or (number.is_cpu and reverse_mode_only(number))


def _mixture(weights: Iterable[Number], parts: Sequence[SharpPart]) -> list[SharpPart]:
    return [_times(log_of(weight), part) for weight, part in zip(weights, parts, strict=True)]


_SHARP: dict[Callable[..., Tensor], Callable[[Any], list[SharpPart]]] = {
    RBFKernel.from_sq_dist: lambda kernel: [_of_gaussian(kernel.sigma)],
    RBFBKernel.from_sq_dist: lambda kernel: [_of_gaussian(kernel.sigma)],
    RBFMix.from_sq_dist: lambda kernel: _mixture(kernel.weights, [_of_gaussian(sigma) for sigma in kernel.sigmas]),
    RationalQuadraticKernel.from_sq_dist: lambda kernel: [_of_rational_quadratic(kernel, kernel.alpha, kernel.length)],
    RationalQuadraticMix.from_sq_dist: lambda kernel: _mixture(
        kernel.weights, [_of_rational_quadratic(kernel, alpha, kernel.length) for alpha in kernel.alphas]
    ),
    InverseMultiquadricKernel.from_sq_dist: lambda kernel: [
        _of_rational_quadratic(kernel, -kernel.beta, kernel._length)
    ],
    LaplaceKernel.from_sq_dist: lambda kernel: [_of_matern(0.5, kernel.scale)],
    MaternKernel.from_sq_dist: lambda kernel: [_of_matern(kernel.nu, kernel.length)],
}
