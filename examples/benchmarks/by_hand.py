"""Hand-written MMD^2 with autograd, and the kernels that the benchmarks use."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses import Kernel, RationalQuadraticMix, RBFKernel, RBFMix

ALPHAS = (0.2, 0.5, 1.0, 2.0, 5.0)
SPREAD = (0.25, 0.5, 1.0, 2.0, 4.0)

Loss = Callable[[Tensor, Tensor], Tensor]
"""A function of real and fake scores."""

Map = Callable[[Tensor], Tensor]
"""A kernel as a function of squared distances."""


class Pair(NamedTuple):
    """One kernel twice: of the library, and by hand."""

    ours: Kernel
    by_hand: Map


def samples(n: int, d: int, seed: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Return real and fake scores `(n, d)` of two normal distributions that are neither equal nor far apart."""
    generator = torch.Generator().manual_seed(seed)
    real = torch.randn(n, d, dtype=dtype, generator=generator)
    fake = 1.1 * torch.randn(n, d, dtype=dtype, generator=generator) + 0.3
    return real.requires_grad_(), fake.requires_grad_()


def bandwidths(d: int) -> dict[str, tuple[float, ...]]:
    """Return the sigmas of the Gaussian kernels that suit :func:`samples` of dimension `d`."""
    return {"RBF": (d**0.5,), "5 RBF": tuple(d**0.5 * factor for factor in SPREAD)}


def gaussians(sigmas: tuple[float, ...]) -> Map:
    """Return the sum of Gaussian kernels as a function of squared distances."""

    def kernel(sq_dist: Tensor) -> Tensor:
        if len(sigmas) == 1:
            return torch.exp(-sq_dist / (2 * sigmas[0] ** 2))
        return torch.stack([torch.exp(-sq_dist / (2 * sigma**2)) for sigma in sigmas]).sum(0)

    return kernel


def rational_quadratics(sq_dist: Tensor) -> Tensor:
    """Return the sum of rational quadratic kernels of squared distances."""
    return torch.stack([(1 + sq_dist / (2 * alpha)) ** -alpha for alpha in ALPHAS]).sum(0)


def kernels(d: int) -> dict[str, Pair]:
    """Return the kernels for scores of dimension `d`."""
    one, five = bandwidths(d).values()
    return {
        "RBF": Pair(RBFKernel(one[0]), gaussians(one)),
        "5 RBF": Pair(RBFMix(five), gaussians(five)),
        "5 RQ": Pair(RationalQuadraticMix(ALPHAS), rational_quadratics),
    }


def expanded(a: Tensor, b: Tensor) -> Tensor:
    """Return squared distances `(m, n)` by one matrix product."""
    return (a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T).clamp_min(0)


def plain(kernel: Map, sq_dist: Loss = expanded) -> Loss:
    """Return the biased MMD^2 by autograd through three Gram matrices."""

    def mean(a: Tensor, b: Tensor) -> Tensor:
        return kernel(sq_dist(a, b)).mean()

    return lambda real, fake: mean(real, real) - 2 * mean(real, fake) + mean(fake, fake)


def by_cdist(kernel: Map) -> Loss:
    """Return the biased MMD^2 from three calls of `torch.cdist`."""
    return plain(kernel, lambda a, b: torch.cdist(a, b).square())


def by_differences(kernel: Map) -> Loss:
    """Return the biased MMD^2 from all differences of the stacked samples, a tensor `(m + n, m + n, d)`."""

    def loss(real: Tensor, fake: Tensor) -> Tensor:
        stack, m = torch.cat([real, fake]), len(real)
        gram = kernel((stack.unsqueeze(0) - stack.unsqueeze(1)).square().sum(2))
        return gram[:m, :m].mean() - 2 * gram[:m, m:].mean() + gram[m:, m:].mean()

    return loss


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """Return the hinge loss of a discriminator."""
    return torch.relu(1 - real).mean() + torch.relu(1 + fake).mean()


def step(loss: Loss, real: Tensor, fake: Tensor) -> Callable[[], None]:
    """Return a function that computes a loss and its gradient."""

    def run() -> None:
        real.grad = fake.grad = None
        loss(real, fake).backward()

    return run
