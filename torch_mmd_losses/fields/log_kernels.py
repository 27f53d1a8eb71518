"""Logarithms of kernels of the distance, of which a kernel with a small bandwidth does not underflow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from torch_mmd_losses.fields.column_distances import PairDistances, of_tile
from torch_mmd_losses.kernels.base import _Product
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
from torch_mmd_losses.kernels.summands import GramSummand, RadialSummand, Summand, worst_conditioning
from torch_mmd_losses.pairs.pair_functions import Tile

Log = Callable[[Tensor], Tensor]
"""Returns the logarithm of a function of the squared distance, at squared distances of any shape."""

Number = float | Tensor
"""A hyper-parameter of a kernel, or a function of it: a tensor if it is trained."""


ColumnLog = Callable[[PairDistances], Tensor]
"""Returns the logarithm of a function of the squared distances in some columns."""

TileLog = Callable[[Tensor, Tile], Tensor]
"""Returns the logarithm of a function of pairs, given the squared distances of a tile and its place."""


class LogKernel:
    """The logarithm of a sum of functions of the distance.

    Args:
        terms: the logarithms of the functions of the distance in all columns.
        summands: the kernels of the distance, whose conditioning theirs is.
        of_columns: the logarithms of the functions of distances in some columns.
    """

    factor: float | None = None

    def __init__(
        self, terms: Sequence[Log], summands: Sequence[RadialSummand], of_columns: Sequence[ColumnLog] = ()
    ) -> None:
        self.terms, self.summands, self.of_columns = terms, summands, of_columns

    def __call__(self, sq_dist: Tensor) -> Tensor:
        """Return the logarithm at squared distances, without functions of some columns."""
        return _log_of_sum([term(sq_dist) for term in self.terms])

    def of(self, distances: PairDistances) -> Tensor:
        """Return the logarithm at some pairs."""
        logarithms = [term(distances.sq_dist) for term in self.terms]
        return _log_of_sum(logarithms + [log(distances) for log in self.of_columns])

    def in_tiles(self, points_and_samples: tuple[Tensor, Tensor] | None) -> TileLog:
        """Return the logarithm as a function of tiles, without a graph.

        Args:
            points_and_samples: `(g, p, d)` and `(g, n, d)`, for functions of some columns.
        """
        if points_and_samples is None or not self.of_columns:
            return lambda sq_dist, tile: self(sq_dist)
        points, samples = points_and_samples
        return lambda sq_dist, tile: self.of(of_tile(sq_dist, tile, points, samples, self))

    def near(self, like: Tensor, error: float) -> float:
        """Return infinity: logarithms are taken in float64."""
        return math.inf

    def conditioning(self, like: Tensor) -> Conditioning:
        """Return the conditioning of the kernel."""
        return worst_conditioning(self.summands, like)


def _log_of_sum(logarithms: Sequence[Tensor]) -> Tensor:
    return logarithms[0] if len(logarithms) == 1 else torch.logsumexp(torch.stack(list(logarithms)), 0)


def log_kernel(summands: Sequence[Summand], normalise: str, dtype: torch.dtype) -> LogKernel:
    """Return the logarithm of a kernel, exact where the library knows it, else that of the values, or raise.

    Args:
        summands: the summands of the kernel.
        normalise: the option that needs the logarithm, for the error message.
        dtype: dtype of the scores, which kernels of users are given.
    """
    terms: list[Log] = []
    of_columns: list[ColumnLog] = []
    leaves: list[RadialSummand] = []
    for summand in summands:
        if isinstance(summand.kernel, EnergyKernel):
            use = "kernel.on(...)" if normalise == "none" else f"normalise={normalise!r}"
            raise TypeError(f"kernel: expected a kernel with values > 0 for {use}, got {type(summand.kernel).__name__}")
        if isinstance(summand, RadialSummand):
            terms += _scaled(summand, _logs(summand, normalise, dtype))
            leaves.append(summand)
        else:
            log, found = _of_columns(summand, normalise, dtype)
            of_columns.append(_plus_constant(log, math.log(summand.factor)))
            leaves += found
    return LogKernel(terms, leaves, of_columns)


def _of_columns(summand: GramSummand, normalise: str, dtype: torch.dtype) -> tuple[ColumnLog, Sequence[RadialSummand]]:
    """Return the logarithm of a kernel of some columns, or of a product with such kernels, and its parts, or raise."""
    kernel: Any = summand.kernel
    if summand.function.of_columns is not None:
        ranges, inner = summand.function.of_columns
        log = log_kernel(inner, normalise, dtype)
        return (lambda distances: log.of(distances.on(ranges))), log.summands
    if isinstance(kernel, _Product):
        logs = [log_kernel(part._summands(), normalise, dtype) for part in kernel.parts]  # type: ignore[operator]
        leaves = [leaf for log in logs for leaf in log.summands]
        return (lambda distances: torch.stack([log.of(distances) for log in logs]).sum(0)), leaves
    raise TypeError(
        "kernel: expected a kernel of the distance such as LaplaceKernel(scale=1.0), got "
        f"{type(kernel).__name__}, which is not one"
    )


def _plus_constant(log: ColumnLog, number: float) -> ColumnLog:
    return (lambda distances: log(distances) + number) if number else log


def _logs(summand: RadialSummand, normalise: str, dtype: torch.dtype) -> list[Log]:
    kernel: Any = summand.kernel
    if isinstance(kernel, _Product):
        return [_total([log_kernel(part._summands(), normalise, dtype) for part in kernel.parts])]  # type: ignore[operator]
    known = _LOGS.get(definition_of(summand))
    return known(kernel) if known else [_log_of_values(summand, dtype)]


def _total(logs: Sequence[Log]) -> Log:
    return lambda sq_dist: torch.stack([log(sq_dist) for log in logs]).sum(0)


def definition_of(summand: RadialSummand) -> Callable[..., Tensor]:
    """Return the method that defines a kernel."""
    # By method, not by class: a subclass that overrides from_sq_dist is another kernel.
    definition: Callable[..., Tensor] = type(summand.kernel).from_sq_dist  # type: ignore[attr-defined]
    return definition


def _scaled(summand: RadialSummand, terms: Sequence[Log]) -> list[Log]:
    return [plus(term, math.log(summand.factor)) for term in terms]


def plus(log: Log, number: Number) -> Log:
    """Return a logarithm plus a number."""
    return (lambda sq_dist: log(sq_dist) + number) if isinstance(number, Tensor) or number else log


def log_of(number: Number) -> Number:
    """Return the logarithm of a number, with a graph if it is trained."""
    return number.log() if isinstance(number, Tensor) else math.log(number)


def _log_of_values(summand: RadialSummand, dtype: torch.dtype) -> Log:
    value = summand.profile.value
    return lambda sq_dist: torch.log(value(sq_dist.to(dtype)).to(sq_dist.dtype))


def gaussian(sigma: Number) -> Log:
    """Return the logarithm of a Gaussian kernel."""
    return lambda sq_dist: sq_dist / sigma / sigma * -0.5


def rational_quadratic(alpha: Number, length: Number) -> Log:
    """Return the logarithm of a rational quadratic kernel."""
    return lambda sq_dist: torch.log1p(sq_dist / length / length * (0.5 / alpha)) * -alpha


def _laplace(scale: Number, floor: float) -> Log:
    def log(sq_dist: Tensor) -> Tensor:
        return (negative_distance(sq_dist) / scale).clamp_max(-floor / scale if floor else 0.0)

    return log


def polynomial_times_exponential(decay: Number, coefficients: Sequence[float]) -> Log:
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
        polynomial_times_exponential(
            (2 * kernel.nu) ** 0.5 / kernel.length, (1.0,) if kernel.nu == 1.5 else (1.0, 1 / 3)
        )
    ]


def _mixture(weights: Iterable[Number], logs: Sequence[Log]) -> list[Log]:
    return [plus(log, log_of(weight)) for weight, log in zip(weights, logs, strict=True)]


_LOGS: dict[Callable[..., Tensor], Callable[[Any], list[Log]]] = {
    RBFKernel.from_sq_dist: lambda kernel: [gaussian(kernel.sigma)],
    RBFBKernel.from_sq_dist: lambda kernel: [gaussian(kernel.sigma)],
    RBFMix.from_sq_dist: lambda kernel: _mixture(kernel.weights, [gaussian(sigma) for sigma in kernel.sigmas]),
    RationalQuadraticKernel.from_sq_dist: lambda kernel: [rational_quadratic(kernel.alpha, kernel.length)],
    RationalQuadraticMix.from_sq_dist: lambda kernel: _mixture(
        kernel.weights, [rational_quadratic(alpha, kernel.length) for alpha in kernel.alphas]
    ),
    InverseMultiquadricKernel.from_sq_dist: lambda kernel: [rational_quadratic(-kernel.beta, kernel._length)],
    LaplaceKernel.from_sq_dist: lambda kernel: [_laplace(kernel.scale, kernel.floor)],
    MaternKernel.from_sq_dist: _matern,
}
