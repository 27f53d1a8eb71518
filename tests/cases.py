"""The kernels that every law is tried on, each with a scalar definition written apart from the library's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torch_mmd_losses import (
    EnergyKernel,
    InverseMultiquadricKernel,
    Kernel,
    L1LaplaceKernel,
    LaplaceKernel,
    LinearKernel,
    MaternKernel,
    PolynomialKernel,
    RationalQuadraticKernel,
    RationalQuadraticMix,
    RBFBKernel,
    RBFKernel,
    RBFMix,
)


class Exponential(torch.autograd.Function):
    """`exp(-x)`, in the form of functions that transforms refuse: without `setup_context`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        values = torch.exp(-x)
        ctx.save_for_backward(values)
        return values

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors
        return -outer * values


class OwnFunction(Kernel):
    """A user's Gaussian kernel by a function with a gradient of its own, with `sigma = 2`."""

    def from_sq_dist(self, sq_dist: Tensor) -> Tensor:
        return Exponential.apply(sq_dist / 8)


class InverseMultiquadric(Kernel):
    """A user's own kernel of the distance."""

    def from_sq_dist(self, sq_dist: Tensor) -> Tensor:
        return (1 + sq_dist).rsqrt()


class Cubic(Kernel):
    """A user's own kernel that is no function of the distance."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3


def _sq(a: list[float], b: list[float]) -> float:
    return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))


def _dot(a: list[float], b: list[float]) -> float:
    return sum(p * q for p, q in zip(a, b, strict=True))


def _l1(a: list[float], b: list[float]) -> float:
    return sum(abs(p - q) for p, q in zip(a, b, strict=True))


def _matern(e: float, nu: float, length: float) -> float:
    u = math.sqrt(2 * nu * e) / length
    return math.exp(-u) * {0.5: 1, 1.5: 1 + u, 2.5: 1 + u + u * u / 3}[nu]


def _rbf(e: float, sigma: float) -> float:
    return math.exp(-e / (2 * sigma * sigma))


def _rq(e: float, alpha: float, length: float = 1.0) -> float:
    return (1 + e / (2 * alpha * length * length)) ** -alpha


@dataclass(frozen=True)
class KernelCase:
    """A kernel, its value for two samples, and which laws it obeys."""

    make: Callable[[], Kernel]
    scalar: Callable[[list[float], list[float]], float]
    positive: bool = True  # positive semi-definite Gram matrices
    radial: bool = True  # invariant under translation and rotation
    peak: float | None = 1.0  # k(a, a) and upper bound; None where there is none
    smooth: bool = True  # twice differentiable at coincident samples
    translated: bool = True  # MMD^2 stays when all scores are moved
    rotated: bool = True  # and when they are rotated
    bounded: bool = False  # another kernel in the discriminator's loss


CASES = {
    "rbf": KernelCase(lambda: RBFKernel(1.3), lambda a, b: _rbf(_sq(a, b), 1.3)),
    "rbf_mix": KernelCase(
        RBFMix, lambda a, b: sum(_rbf(_sq(a, b), s) for s in (1, 2**0.5, 2, 2 * 2**0.5, 4)), peak=5.0
    ),
    "rbf_mix_weighted": KernelCase(
        lambda: RBFMix((0.5, 2.0), weights=(0.3, 2.0)),
        lambda a, b: 0.3 * _rbf(_sq(a, b), 0.5) + 2.0 * _rbf(_sq(a, b), 2.0),
        peak=2.3,
    ),
    "rational_quadratic": KernelCase(lambda: RationalQuadraticKernel(0.7), lambda a, b: _rq(_sq(a, b), 0.7)),
    "rational_quadratic_mix": KernelCase(
        RationalQuadraticMix, lambda a, b: sum(_rq(_sq(a, b), s) for s in (0.2, 0.5, 1, 2, 5)), peak=5.0
    ),
    "rational_quadratic_mix_weighted": KernelCase(
        lambda: RationalQuadraticMix((0.4, 3.0), weights=(0.5, 0.25)),
        lambda a, b: 0.5 * _rq(_sq(a, b), 0.4) + 0.25 * _rq(_sq(a, b), 3.0),
        peak=0.75,
    ),
    "rational_quadratic_length": KernelCase(
        lambda: RationalQuadraticKernel(20.0, length=0.6), lambda a, b: _rq(_sq(a, b), 20.0, 0.6)
    ),
    "rational_quadratic_mix_length": KernelCase(
        lambda: RationalQuadraticMix((0.4, 3.0), weights=(0.5, 0.25), length=2.5),
        lambda a, b: 0.5 * _rq(_sq(a, b), 0.4, 2.5) + 0.25 * _rq(_sq(a, b), 3.0, 2.5),
        peak=0.75,
    ),
    "rbf_b": KernelCase(RBFBKernel, lambda a, b: _rbf(_sq(a, b), 1.0), bounded=True),
    "linear": KernelCase(LinearKernel, _dot, radial=False, peak=None),
    "polynomial": KernelCase(
        lambda: PolynomialKernel(2, offset=0.5),
        lambda a, b: (_dot(a, b) / len(a) + 0.5) ** 2,
        radial=False,
        peak=None,
        translated=False,
    ),
    "energy": KernelCase(EnergyKernel, lambda a, b: -math.sqrt(_sq(a, b)), positive=False, peak=0.0, smooth=False),
    "laplace": KernelCase(lambda: LaplaceKernel(1.7), lambda a, b: math.exp(-math.sqrt(_sq(a, b)) / 1.7), smooth=False),
    "matern_32": KernelCase(lambda: MaternKernel(1.5, 1.4), lambda a, b: _matern(_sq(a, b), 1.5, 1.4)),
    "l1_laplace": KernelCase(
        lambda: L1LaplaceKernel(2.5), lambda a, b: math.exp(-_l1(a, b) / 2.5), radial=False, smooth=False, rotated=False
    ),
    "sum": KernelCase(
        lambda: RBFKernel(0.8) + RationalQuadraticKernel(2.0),
        lambda a, b: _rbf(_sq(a, b), 0.8) + _rq(_sq(a, b), 2.0),
        peak=2.0,
    ),
    "sum_with_linear": KernelCase(
        lambda: 2 * RBFKernel() + LinearKernel() * 0.5,
        lambda a, b: 2 * _rbf(_sq(a, b), 1.0) + 0.5 * _dot(a, b),
        radial=False,
        peak=None,
    ),
    "multiple_of_bounded": KernelCase(
        lambda: 1.5 * RBFBKernel(2.0), lambda a, b: 1.5 * _rbf(_sq(a, b), 2.0), peak=1.5, bounded=True
    ),
    "sum_with_bounded": KernelCase(
        lambda: 0.5 * RBFBKernel() + RBFKernel(2.0),
        lambda a, b: _rbf(_sq(a, b), 2.0) + 0.5 * _rbf(_sq(a, b), 1.0),
        peak=1.5,
        bounded=True,
    ),
    "product": KernelCase(
        lambda: MaternKernel(2.5, 0.8) * (2 * InverseMultiquadricKernel(1.5, -0.7)),
        lambda a, b: 2 * _matern(_sq(a, b), 2.5, 0.8) * (1 + _sq(a, b) / 2.25) ** -0.7,
        peak=2.0,
    ),
    "columns": KernelCase(
        lambda: (
            RBFKernel(1.2).on(slice(0, 1)) * RBFKernel(0.7)
            + RationalQuadraticKernel(0.7).on(slice(0, 1)) * MaternKernel(2.5, 1.3).on(slice(None))
        ),
        lambda a, b: (
            _rbf(_sq(a[:1], b[:1]), 1.2) * _rbf(_sq(a, b), 0.7)
            + _rq(_sq(a[:1], b[:1]), 0.7) * _matern(_sq(a, b), 2.5, 1.3)
        ),
        radial=False,
        peak=2.0,
        rotated=False,
    ),
    "own_radial": KernelCase(InverseMultiquadric, lambda a, b: (1 + _sq(a, b)) ** -0.5),
    "own_general": KernelCase(
        Cubic, lambda a, b: (_dot(a, b) / len(a) + 1) ** 3, radial=False, peak=None, translated=False
    ),
}

INVARIANT = {name: case for name, case in CASES.items() if case.translated}
RADIAL = {name: case for name, case in CASES.items() if case.radial}
SMOOTH = {name: case for name, case in CASES.items() if case.smooth}
UNBOUNDED = {name: case for name, case in CASES.items() if not case.bounded}


def scores(m: int, d: int, seed: int = 0, *, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    """Return normal scores `(m, d)` in float64 from a generator of their own."""
    generator = torch.Generator().manual_seed(seed)
    return shift + scale * torch.randn(m, d, generator=generator, dtype=torch.float64)
