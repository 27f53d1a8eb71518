"""Spectral measures of kernels: random frequencies whose characteristic function is the kernel."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses import random_numbers
from torch_mmd_losses.devices import moved
from torch_mmd_losses.kernels.bounded import RBFBKernel
from torch_mmd_losses.kernels.hyperparameters import Hyperparameters
from torch_mmd_losses.kernels.inverse_multiquadric import InverseMultiquadricKernel
from torch_mmd_losses.kernels.matern import LaplaceKernel, MaternKernel
from torch_mmd_losses.kernels.radial import RationalQuadraticKernel, RationalQuadraticMix, RBFKernel, RBFMix
from torch_mmd_losses.kernels.summands import RadialSummand, Summand
from torch_mmd_losses.precision import total_dtype


class Component(NamedTuple):
    """A component of a kernel. Its frequencies are normally distributed with precision `sigma**2 / s`.

    For a Gaussian kernel, `s` is 1. A rational quadratic kernel with length scale `sigma` is a mixture of Gaussian
    kernels, so its `s` is random and follows the gamma distribution with shape and rate `alpha`. The frequencies of a
    Matern kernel follow Student's t distribution with `2 alpha` degrees of freedom: `1 / s` follows the gamma
    distribution, and `inverse` is true.
    """

    weight: float
    sigma: float
    alpha: float | None = None
    inverse: bool = False


# By method, not by class: a subclass that overrides from_sq_dist has another spectral measure.
_COMPONENTS: dict[Callable[..., Tensor], Callable[[Any], list[Component]]] = {
    RBFKernel.from_sq_dist: lambda kernel: [Component(1.0, kernel.sigma)],
    RBFBKernel.from_sq_dist: lambda kernel: [Component(1.0, kernel.sigma)],
    RBFMix.from_sq_dist: lambda kernel: [
        Component(weight, sigma) for sigma, weight in zip(kernel.sigmas, kernel.weights, strict=True)
    ],
    RationalQuadraticKernel.from_sq_dist: lambda kernel: [Component(1.0, kernel.length, kernel.alpha)],
    RationalQuadraticMix.from_sq_dist: lambda kernel: [
        Component(weight, kernel.length, alpha) for alpha, weight in zip(kernel.alphas, kernel.weights, strict=True)
    ],
    InverseMultiquadricKernel.from_sq_dist: lambda kernel: [Component(1.0, kernel._length, -kernel.beta)],
    LaplaceKernel.from_sq_dist: lambda kernel: [Component(1.0, kernel.scale, 0.5, inverse=True)],
    MaternKernel.from_sq_dist: lambda kernel: [Component(1.0, kernel.length, kernel.nu, inverse=True)],
}


def is_known(summand: Summand) -> bool:
    """Return whether the library knows the spectral measure of a summand."""
    has_floor = isinstance(summand.kernel, LaplaceKernel) and summand.kernel.floor > 0
    return isinstance(summand, RadialSummand) and _definition(summand) in _COMPONENTS and not has_floor


def is_trained(summand: Summand) -> bool:
    """Return whether the hyper-parameters of a summand are tensors, to which random frequencies pass no gradient."""
    return isinstance(summand.kernel, Hyperparameters) and summand.kernel._trainable


def components(summand: Summand) -> list[Component]:
    """Return the components of a summand with a known spectral measure."""
    found = _COMPONENTS[_definition(summand)](summand.kernel)
    return [part._replace(weight=summand.factor * part.weight) for part in found]


def _definition(summand: Summand) -> Callable[..., Tensor]:
    definition: Callable[..., Tensor] = type(summand.kernel).from_sq_dist  # type: ignore[attr-defined]
    return definition


def draw(
    mixture: list[Component], frequencies: int, dimension: int, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    r"""Return independent frequencies `(frequencies, dimension)`, in :func:`total_dtype`.

    The mean of :math:`\cos(\langle \omega, a - b \rangle)` over all of them has the expectation :math:`k(a, b) / k(0)`
    for the sum of the components. Frequencies are assigned to components by stratified sampling: the unit interval is
    divided between the components in proportion to their weights, and frequency `f` of `F` gets the component at a
    random point of the `f`-th of `F` equal pieces of the interval. The number of frequencies of each component is then
    proportional to its weight, to within a few frequencies. The frequencies are independent, but not identically
    distributed.
    """
    place = device if generator is None else generator.device
    dtype = total_dtype(place)

    def constant(numbers: list[float]) -> Tensor:
        return moved(torch.tensor(numbers, dtype=dtype, device="cpu"), place)

    ends = list(accumulate(part.weight for part in mixture))
    bounds = constant([end / ends[-1] for end in ends[:-1]])
    within = random_numbers.uniform((frequencies,), dtype, place, generator)
    points = (torch.arange(frequencies, dtype=dtype, device=place) + within) / frequencies
    chosen = torch.bucketize(points, bounds, right=True)
    scales = constant([1 / part.sigma for part in mixture])[chosen]
    if any(part.alpha is not None for part in mixture):
        shapes = constant([part.alpha or 1.0 for part in mixture])[chosen]
        gamma = torch._standard_gamma(shapes, generator=generator) / shapes
        if any(part.inverse for part in mixture):
            inverse = constant([float(part.inverse) for part in mixture])[chosen] > 0
            gamma = torch.where(inverse, 1 / gamma, gamma)
        random = constant([float(part.alpha is not None) for part in mixture])[chosen] > 0
        scales = scales * torch.where(random, gamma, 1.0).sqrt()
    normal = random_numbers.normal((frequencies, dimension), dtype, place, generator)
    return moved(normal * scales.unsqueeze(1), device)
