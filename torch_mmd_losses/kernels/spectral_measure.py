"""Spectral measures: the random frequencies of which a kernel of the distance is the characteristic function."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses.distances import total_dtype
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.radial import RationalQuadraticKernel, RationalQuadraticMix, RBFBKernel, RBFKernel, RBFMix
from torch_mmd_losses.kernels.summands import Leaf


class Part(NamedTuple):
    """A part of a kernel, whose frequencies are normal with precision `sigma**2 / s`.

    For a Gaussian kernel `s` is 1. A rational quadratic one is a mixture of Gaussian ones: its `s` is random, with the
    gamma distribution of shape and rate `alpha`.
    """

    weight: float
    sigma: float = 1.0
    alpha: float | None = None


# By the map, not by the class: a derived kernel with a map of its own has a spectral measure of its own, too.
_PARTS: dict[Callable[..., Tensor], Callable[[Any], list[Part]]] = {
    RBFKernel.from_sq_dist: lambda kernel: [Part(1.0, kernel.sigma)],
    RBFBKernel.from_sq_dist: lambda kernel: [Part(1.0, kernel.sigma)],
    RBFMix.from_sq_dist: lambda kernel: [
        Part(weight, sigma) for sigma, weight in zip(kernel.sigmas, kernel.weights, strict=True)
    ],
    RationalQuadraticKernel.from_sq_dist: lambda kernel: [Part(1.0, alpha=kernel.alpha)],
    RationalQuadraticMix.from_sq_dist: lambda kernel: [
        Part(weight, alpha=alpha) for alpha, weight in zip(kernel.alphas, kernel.weights, strict=True)
    ],
}


def known(kernel: Kernel) -> bool:
    """Whether the spectral measure of a kernel that is no sum or multiple is known."""
    return kernel._radial and type(kernel).from_sq_dist in _PARTS


def parts(leaf: Leaf) -> list[Part]:
    """Return the parts that a kernel with a known spectral measure is the sum of."""
    found = _PARTS[type(leaf.kernel).from_sq_dist](leaf.kernel)
    return [Part(leaf.factor * weight, sigma, alpha) for weight, sigma, alpha in found]


def draw(
    mixture: list[Part], frequencies: int, dimension: int, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    r"""Return independent frequencies `(frequencies, dimension)`, in :func:`total_dtype`.

    The mean of :math:`\cos(\langle \omega, a - b \rangle)` over all of them has the expectation :math:`k(a, b) / k(0)`
    for the sum of the parts. Which part a frequency belongs to is stratified: the unit interval is divided between the
    parts in proportion to their weights, and frequency `f` of `F` takes the part at a point drawn from the `f`-th of
    `F` equal pieces of the interval. The share of each part is then right up to a few frequencies, and the frequencies
    remain independent, though not alike.
    """
    place = device if generator is None else generator.device
    dtype = total_dtype(place)

    def constant(numbers: list[float]) -> Tensor:
        return torch.tensor(numbers, dtype=dtype).to(place, non_blocking=True)  # makes nobody wait for the device

    ends = list(accumulate(part.weight for part in mixture))
    bounds = constant([end / ends[-1] for end in ends[:-1]])
    within = torch.rand(frequencies, generator=generator, dtype=dtype, device=place)
    points = (torch.arange(frequencies, dtype=dtype, device=place) + within) / frequencies
    chosen = torch.bucketize(points, bounds, right=True)
    scales = constant([1 / part.sigma for part in mixture])[chosen]
    if any(part.alpha is not None for part in mixture):
        shapes = constant([part.alpha or 1.0 for part in mixture])[chosen]
        gamma = torch._standard_gamma(shapes, generator=generator) / shapes
        random = constant([float(part.alpha is not None) for part in mixture])[chosen] > 0
        scales = scales * torch.where(random, gamma, 1.0).sqrt()
    # Not torch.randn, which takes no generator where the compiler has a symbol for the dimension, nor the lack of one.
    normal = torch.empty(frequencies, dimension, dtype=dtype, device=place).normal_(generator=generator)
    return (normal * scales.unsqueeze(1)).to(device, non_blocking=True)
