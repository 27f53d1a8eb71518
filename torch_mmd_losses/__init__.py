"""Losses, kernels and tests of the maximum mean discrepancy (MMD) in PyTorch."""

from torch_mmd_losses.estimators.blocks import mmd2_blocks
from torch_mmd_losses.estimators.fourier import mmd2_fourier
from torch_mmd_losses.estimators.mmd2 import mmd2
from torch_mmd_losses.estimators.variance import mmd2_and_variance
from torch_mmd_losses.estimators.witness import witness
from torch_mmd_losses.fields.drift import drift
from torch_mmd_losses.fields.drift_loss import drift_loss
from torch_mmd_losses.fields.kernel_sums import kernel_sums
from torch_mmd_losses.fields.witness_gradient import witness_gradient
from torch_mmd_losses.gradient_constrained.mmd2 import gradient_constrained_mmd2
from torch_mmd_losses.groups.mmd2 import grouped_mmd2
from torch_mmd_losses.kernels.bandwidth import median_distance
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.bounded import RBFBKernel
from torch_mmd_losses.kernels.inner_product import LinearKernel, PolynomialKernel
from torch_mmd_losses.kernels.inverse_multiquadric import InverseMultiquadricKernel
from torch_mmd_losses.kernels.l1_laplace import L1LaplaceKernel
from torch_mmd_losses.kernels.matern import LaplaceKernel, MaternKernel
from torch_mmd_losses.kernels.radial import (
    EnergyKernel,
    RationalQuadraticKernel,
    RationalQuadraticMix,
    RBFKernel,
    RBFMix,
)
from torch_mmd_losses.losses.gradient_caching import cached_backward
from torch_mmd_losses.losses.mmd import MMDLoss
from torch_mmd_losses.losses.penalties import gradient_penalty, interpolation_points, l2_penalty
from torch_mmd_losses.losses.scaled import ScaledMMDLoss
from torch_mmd_losses.references.balance import ratio_to_real, relative
from torch_mmd_losses.references.distance_quantiles import distance_quantiles
from torch_mmd_losses.references.reference import MMDReference
from torch_mmd_losses.spectral.norm import conv_spectral_norm, spectral_norms
from torch_mmd_losses.two_sample.permutation import mmd_test
from torch_mmd_losses.two_sample.relative import relative_mmd_test
from torch_mmd_losses.usage_warnings import UsageWarning

__version__ = "0.1.0"

__all__ = [
    # kernels
    "EnergyKernel",
    "InverseMultiquadricKernel",
    "Kernel",
    "L1LaplaceKernel",
    "LaplaceKernel",
    "LinearKernel",
    "MaternKernel",
    "PolynomialKernel",
    "RBFBKernel",
    "RBFKernel",
    "RBFMix",
    "RationalQuadraticKernel",
    "RationalQuadraticMix",
    "distance_quantiles",
    "median_distance",
    # estimators and loss
    "MMDLoss",
    "MMDReference",
    "ScaledMMDLoss",
    "cached_backward",
    "gradient_constrained_mmd2",
    "grouped_mmd2",
    "mmd2",
    "mmd2_and_variance",
    "mmd2_blocks",
    "mmd2_fourier",
    "ratio_to_real",
    "relative",
    "witness",
    # fields
    "drift",
    "drift_loss",
    "kernel_sums",
    "witness_gradient",
    # tests
    "mmd_test",
    "relative_mmd_test",
    # penalties
    "gradient_penalty",
    "interpolation_points",
    "l2_penalty",
    # spectral normalisation
    "conv_spectral_norm",
    "spectral_norms",
    # warnings
    "UsageWarning",
]
