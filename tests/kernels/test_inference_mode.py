"""Kernels whose slopes come from autograd, in inference mode, where autograd records nothing."""

import pytest
import torch
from cases import Cubic, InverseMultiquadric, OwnFunction
from torch import nn
from torch.testing import assert_close

from torch_mmd_losses import (
    Kernel,
    MMDLoss,
    RBFKernel,
    gradient_constrained_mmd2,
    mmd2,
    witness_gradient,
)

KERNELS = {"own": InverseMultiquadric(), "trained": RBFKernel(2.0, trainable=True), "own_general": Cubic()}
every_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)


class Weighted(Kernel):
    """Holds a tensor that autograd refuses if it was made in inference mode."""

    def __init__(self):
        super().__init__()
        self.rates = nn.Parameter(torch.tensor(0.125))

    def from_sq_dist(self, sq_dist):
        return torch.exp(-sq_dist * self.rates)


class Sharp(Kernel):
    def from_sq_dist(self, sq_dist):
        return torch.exp(-1e4 * sq_dist)


def samples():
    return torch.randn(6, 3), torch.randn(5, 3) + 0.4


@every_kernel
def test_gradients_of_the_witness_function(kernel):
    real, fake = samples()
    expected = witness_gradient(fake, real=real, fake=fake, kernel=kernel)
    with torch.inference_mode():
        found = witness_gradient(fake, real=real, fake=fake, kernel=kernel)
    assert expected.any()
    assert_close(found, expected.detach())


@pytest.mark.parametrize("kind", [OwnFunction, Weighted])
def test_kernels_that_transforms_or_autograd_refuse(kind):
    real, fake = samples()
    expected = witness_gradient(fake, real=real, fake=fake, kernel=RBFKernel(2.0))
    with torch.inference_mode():
        assert_close(witness_gradient(fake, real=real, fake=fake, kernel=kind()), expected)


def test_distances_are_as_precise_as_the_kernel_demands():
    real = 100 * torch.randn(20, 3)
    fake = real + 5e-3 * torch.randn(20, 3)
    expected = mmd2(real.double(), fake.double(), Sharp())
    with torch.inference_mode():
        assert_close(mmd2(real, fake, Sharp()).double(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", ["own", "trained"])
def test_a_kernel_that_reaches_all_scores_is_not_warned_of(name):
    real, fake = samples()
    with torch.inference_mode():
        MMDLoss(KERNELS[name]).generator(real=real, fake=fake)  # warnings are errors


@pytest.mark.parametrize("rank", [None, 4])
def test_derivatives_of_features(rank):
    (real, fake), features = samples(), nn.Sequential(nn.Linear(3, 2), nn.Tanh())
    expected = gradient_constrained_mmd2(real, fake, RBFKernel(), features=features, rank=rank)
    with torch.inference_mode():
        assert_close(
            gradient_constrained_mmd2(real, fake, RBFKernel(), features=features, rank=rank), expected.detach()
        )
