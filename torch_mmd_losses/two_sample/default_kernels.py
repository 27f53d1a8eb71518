"""Default kernels for tests, with bandwidths from the pooled samples."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.matern import LaplaceKernel
from torch_mmd_losses.kernels.radial import RBFKernel

BANDWIDTHS = (0.125, 0.25, 0.5, 1.0, 2.0)
"""Bandwidths of the default kernels, in units of the median distance over the root of two."""

FUSED = 10
"""Number of bandwidths of each kind of kernel in the collection of MMD-FUSE."""


def gaussians(pooled: Tensor) -> list[Kernel]:
    """Return five Gaussian kernels around the median distance between the samples."""
    distances = _distances(pooled)
    sigma = float(distances.median()) / 2**0.5
    return [RBFKernel(factor * sigma) for factor in BANDWIDTHS]


def collection(pooled: Tensor) -> list[Kernel]:
    """Return kernels from half the 5 % quantile of the distances between the samples to twice the 95 % quantile.

    The Laplace kernels are those of the Euclidean distance, not of the 1-norm as in MMD-FUSE, so that all kernels share
    the distances.
    """
    distances = _distances(pooled).sort().values
    least, most = (float(distances[int(len(distances) * share)]) for share in (0.05, 0.95))
    widths = torch.linspace(least / 2, 2 * most, FUSED, dtype=torch.float64, device="cpu").tolist()
    return [RBFKernel(width) for width in widths] + [LaplaceKernel(width / 2**0.5) for width in widths]


def _distances(pooled: Tensor) -> Tensor:
    """Return the distances above zero, or one if all samples are equal, when the bandwidth does not matter."""
    distances = torch.pdist(pooled)
    apart = distances[(distances > 0) & distances.isfinite()]
    return apart if apart.numel() else distances.new_ones(1)
