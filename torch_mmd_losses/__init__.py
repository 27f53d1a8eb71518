"""MMD losses and regularisers for GANs in PyTorch."""

from torch_mmd_losses._kernel import Kernel
from torch_mmd_losses.blocks import mmd2_blocks
from torch_mmd_losses.fourier import mmd2_fourier
from torch_mmd_losses.functional import mmd2
from torch_mmd_losses.gradient_constrained import gradient_constrained_mmd2
from torch_mmd_losses.kernels import (
    EnergyKernel,
    LinearKernel,
    PolynomialKernel,
    RationalQuadraticKernel,
    RationalQuadraticMix,
    RBFBKernel,
    RBFKernel,
    RBFMix,
)
from torch_mmd_losses.losses import MMDLoss
from torch_mmd_losses.penalties import gradient_penalty, interpolation_points, l2_penalty, witness
from torch_mmd_losses.permutation import mmd_test
from torch_mmd_losses.relative import relative_mmd_test
from torch_mmd_losses.scaled import ScaledMMDLoss
from torch_mmd_losses.spectral_norm import conv_spectral_norm, spectral_norms
from torch_mmd_losses.variance import mmd2_and_variance

__version__ = "0.1.0"

__all__ = [
    # kernels
    "EnergyKernel",
    "Kernel",
    "LinearKernel",
    "PolynomialKernel",
    "RBFBKernel",
    "RBFKernel",
    "RBFMix",
    "RationalQuadraticKernel",
    "RationalQuadraticMix",
    # estimators and loss
    "MMDLoss",
    "ScaledMMDLoss",
    "gradient_constrained_mmd2",
    "mmd2",
    "mmd2_and_variance",
    "mmd2_blocks",
    "mmd2_fourier",
    # tests
    "mmd_test",
    "relative_mmd_test",
    # penalties
    "gradient_penalty",
    "interpolation_points",
    "l2_penalty",
    "witness",
    # spectral normalisation
    "conv_spectral_norm",
    "spectral_norms",
]
