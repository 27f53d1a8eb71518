"""Logarithms of kernels of the distance, and of their sharp kernels.

A kernel with a small bandwidth underflows where its logarithm does not. The sharp kernel of `k` is the function of the
distance whose gradient with respect to `x` is `k(x, y) (y - x)`. It is half the integral of `k` over all larger squared
distances.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torch_mmd_losses.kernels.base import Kernel, _OnColumns, _Product
from torch_mmd_losses.kernels.bounded import RBFBKernel
from torch_mmd_losses.kernels.contract import Conditioning
from torch_mmd_losses.kernels.inverse_multiquadric import InverseMultiquadricKernel
from torch_mmd_losses.kernels.matern import LaplaceKernel, MaternKernel
from torch_mmd_losses.kernels.profiles import negative_distance
from torch_mmd_losses.kernels.radial import (
    EnergyKernel,
    RationalQuadraticKernel,
    RationalQuadraticMix,
    RBFKernel,
    RBFMix,
)
from torch_mmd_losses.kernels.summands import RadialSummand, worst_conditioning

Log = Callable[[Tensor], Tensor]
"""Returns the logarithm of a function of the squared distance, at squared distances of any shape."""


class LogKernel:
    """The logarithm of a sum of functions of the distance.

    Args:
        terms: the logarithms of the functions.
        summands: the summands of the kernel, which have the same conditioning.
    """

    factor: float | None = None

    def __init__(self, terms: Sequence[Log], summands: Sequence[RadialSummand]) -> None:
        self.terms = terms
        self.summands = summands

    def __call__(self, sq_dist: Tensor) -> Tensor:
        """Return the logarithm at squared distances."""
        if len(self.terms) == 1:
            return self.terms[0](sq_dist)
        return torch.logsumexp(torch.stack([term(sq_dist) for term in self.terms]), 0)

    def near(self, like: Tensor, error: float) -> float:
        """Return infinity: logarithms are taken in float64."""
        return math.inf

    def conditioning(self, like: Tensor) -> Conditioning:
        """Return the conditioning of the kernel."""
        return worst_conditioning(self.summands, like)


def radial_summands(kernel: Kernel) -> list[RadialSummand]:
    """Return the summands of a kernel of the distance, or raise."""
    summands = kernel._summands()
    radial = [summand for summand in summands if isinstance(summand, RadialSummand)]
    if len(radial) < len(summands):
        other = next(summand.kernel for summand in summands if not isinstance(summand, RadialSummand))
        if any(isinstance(module, _OnColumns) for module in other.modules()):
            raise TypeError(
                "kernel: expected a kernel of the distance in all columns, got a kernel on some columns, "
                "kernel.on(...). Pass these columns of the samples, whose drift is that of the kernel itself"
            )
        raise TypeError(
            "kernel: expected a kernel of the distance such as LaplaceKernel(scale=1.0), got "
            f"{type(other).__name__}, which is not one"
        )
    return radial


def log_kernel(summands: Sequence[RadialSummand], normalise: str, dtype: torch.dtype) -> LogKernel:
    """Return the logarithm of a kernel, exact where the library knows it, else the logarithm of the values.

    Args:
        summands: the summands of the kernel.
        normalise: the option that needs the logarithm, for the error message.
        dtype: dtype of the scores, which kernels of users are given.
    """
    terms: list[Log] = []
    for summand in summands:
        if isinstance(summand.kernel, EnergyKernel):
            raise TypeError(
                f"kernel: expected a kernel with values > 0 for normalise={normalise!r}, got "
                f"{type(summand.kernel).__name__}"
            )
        terms += _scaled(summand, _logs(summand, normalise, dtype))
    return LogKernel(terms, summands)


def _logs(summand: RadialSummand, normalise: str, dtype: torch.dtype) -> list[Log]:
    kernel: Any = summand.kernel
    if isinstance(kernel, _Product):
        return [_total([log_kernel(radial_summands(part), normalise, dtype) for part in kernel.parts])]  # type: ignore[arg-type]
    known = _LOGS.get(_definition(summand))
    return known(kernel) if known else [_log_of_values(summand, dtype)]


def _total(logs: Sequence[Log]) -> Log:
    return lambda sq_dist: torch.stack([log(sq_dist) for log in logs]).sum(0)


def log_sharp_kernel(summands: Sequence[RadialSummand]) -> LogKernel:
    """Return the logarithm of the sharp kernel of a kernel."""
    terms: list[Log] = []
    for summand in summands:
        known = _SHARP.get(_definition(summand))
        if known is None or (isinstance(summand.kernel, LaplaceKernel) and summand.kernel.floor):
            named = type(summand.kernel).__name__ if known is None else repr(summand.kernel)
            if isinstance(summand.kernel, _Product):
                named = "a product of kernels"
            raise TypeError(
                "kernel: expected an RBFKernel, RBFMix, RBFBKernel, LaplaceKernel without a floor, MaternKernel, "
                "RationalQuadraticKernel, RationalQuadraticMix or InverseMultiquadricKernel, or sums and multiples of "
                f"them, for normalise='sharp', got {named}, whose sharp kernel is unknown"
            )
        terms += _scaled(summand, known(summand.kernel))
    return LogKernel(terms, summands)


def _definition(summand: RadialSummand) -> Callable[..., Tensor]:
    # By method, not by class: a subclass that overrides from_sq_dist is another kernel.
    definition: Callable[..., Tensor] = type(summand.kernel).from_sq_dist  # type: ignore[attr-defined]
    return definition


def _scaled(summand: RadialSummand, terms: Sequence[Log]) -> list[Log]:
    return [_plus(term, math.log(summand.factor)) for term in terms]


def _plus(log: Log, number: float) -> Log:
    return (lambda sq_dist: log(sq_dist) + number) if number else log


def _log_of_values(summand: RadialSummand, dtype: torch.dtype) -> Log:
    value = summand.profile.value
    return lambda sq_dist: torch.log(value(sq_dist.to(dtype)).to(sq_dist.dtype))


def _gaussian(sigma: float) -> Log:
    return lambda sq_dist: sq_dist / sigma / sigma * -0.5


def _rational_quadratic(alpha: float, length: float) -> Log:
    return lambda sq_dist: torch.log1p(sq_dist / length / length * (0.5 / alpha)) * -alpha


def _laplace(scale: float, floor: float) -> Log:
    def log(sq_dist: Tensor) -> Tensor:
        return (negative_distance(sq_dist) / scale).clamp_max(-floor / scale if floor else 0.0)

    return log


def _polynomial_times_exponential(decay: float, coefficients: Sequence[float]) -> Log:
    """Return the logarithm of `(1 + c_1 v + c_2 v^2 + ...) exp(-v)` for `v = decay * distance`."""

    def log(sq_dist: Tensor) -> Tensor:
        v = negative_distance(sq_dist) * -decay
        polynomial = torch.zeros_like(v)
        for coefficient in reversed(coefficients):
            polynomial = (polynomial + coefficient) * v
        return torch.log1p(polynomial) - v

    return log


def _matern(kernel: Any) -> list[Log]:  # noqa: ANN401
    if kernel.nu == 0.5:
        return [_laplace(kernel.length, 0.0)]
    return [
        _polynomial_times_exponential(
            (2 * kernel.nu) ** 0.5 / kernel.length, (1.0,) if kernel.nu == 1.5 else (1.0, 1 / 3)
        )
    ]


def _sharp_gaussian(sigma: float) -> Log:
    return _plus(_gaussian(sigma), 2 * math.log(sigma))


def _sharp_laplace(scale: float) -> Log:
    return _plus(_polynomial_times_exponential(1 / scale, (1.0,)), 2 * math.log(scale))


def _sharp_matern(kernel: Any) -> list[Log]:  # noqa: ANN401
    """Return the logarithm of the sharp kernel, a Matern kernel of the next order with the same decay."""
    if kernel.nu == 0.5:
        return [_sharp_laplace(kernel.length)]
    decay = (2 * kernel.nu) ** 0.5 / kernel.length
    factor, coefficients = (3.0, (1.0, 1 / 3)) if kernel.nu == 1.5 else (5.0, (1.0, 0.4, 1 / 15))
    return [_plus(_polynomial_times_exponential(decay, coefficients), math.log(factor) - 2 * math.log(decay))]


def _sharp_rational_quadratic(kernel: Kernel, alpha: float, length: float) -> Log:
    if alpha <= 1:
        raise ValueError(
            "kernel: expected a rational quadratic with alpha > 1, or an inverse multiquadric with beta < -1, for "
            f"normalise='sharp', since the sharp kernel is infinite otherwise, got {kernel!r}"
        )
    # (1 + s / c) ** (1 - alpha) is the rational quadratic with the same c.
    lower = alpha - 1
    log = _rational_quadratic(lower, length * math.sqrt(alpha / lower))
    return _plus(log, math.log(alpha / lower) + 2 * math.log(length))


def _mixture(weights: Sequence[float], logs: Sequence[Log]) -> list[Log]:
    return [_plus(log, math.log(weight)) for weight, log in zip(weights, logs, strict=True)]


_LOGS: dict[Callable[..., Tensor], Callable[[Any], list[Log]]] = {
    RBFKernel.from_sq_dist: lambda kernel: [_gaussian(kernel.sigma)],
    RBFBKernel.from_sq_dist: lambda kernel: [_gaussian(kernel.sigma)],
    RBFMix.from_sq_dist: lambda kernel: _mixture(kernel.weights, [_gaussian(sigma) for sigma in kernel.sigmas]),
    RationalQuadraticKernel.from_sq_dist: lambda kernel: [_rational_quadratic(kernel.alpha, kernel.length)],
    RationalQuadraticMix.from_sq_dist: lambda kernel: _mixture(
        kernel.weights, [_rational_quadratic(alpha, kernel.length) for alpha in kernel.alphas]
    ),
    InverseMultiquadricKernel.from_sq_dist: lambda kernel: [_rational_quadratic(-kernel.beta, kernel._length)],
    LaplaceKernel.from_sq_dist: lambda kernel: [_laplace(kernel.scale, kernel.floor)],
    MaternKernel.from_sq_dist: _matern,
}

_SHARP: dict[Callable[..., Tensor], Callable[[Any], list[Log]]] = {
    RBFKernel.from_sq_dist: lambda kernel: [_sharp_gaussian(kernel.sigma)],
    RBFBKernel.from_sq_dist: lambda kernel: [_sharp_gaussian(kernel.sigma)],
    RBFMix.from_sq_dist: lambda kernel: _mixture(kernel.weights, [_sharp_gaussian(sigma) for sigma in kernel.sigmas]),
    RationalQuadraticKernel.from_sq_dist: lambda kernel: [
        _sharp_rational_quadratic(kernel, kernel.alpha, kernel.length)
    ],
    RationalQuadraticMix.from_sq_dist: lambda kernel: _mixture(
        kernel.weights, [_sharp_rational_quadratic(kernel, alpha, kernel.length) for alpha in kernel.alphas]
    ),
    InverseMultiquadricKernel.from_sq_dist: lambda kernel: [
        _sharp_rational_quadratic(kernel, -kernel.beta, kernel._length)
    ],
    LaplaceKernel.from_sq_dist: lambda kernel: [_sharp_laplace(kernel.scale)],
    MaternKernel.from_sq_dist: _sharp_matern,
}
