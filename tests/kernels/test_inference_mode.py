"""Kernels whose slopes come from autograd, in inference mode, where autograd records nothing."""

import pytest
import torch
from cases import Cubic, InverseMultiquadric, OwnFunction
from torch import nn
from torch.testing import assert_close

from torch_mmd_losses import (
    Kernel,
    MMDLoss,
    PolynomialKernel,
    RBFKernel,
    gradient_constrained_mmd2,
    hand_written_gradients,
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


@pytest.fixture(autouse=True, params=[True, False], ids=["", "before PyTorch 2.12"])
def _transforms_record(request, monkeypatch):
    """Let the library believe that transforms do not record in inference mode, as they did not before PyTorch 2.12."""
    if not request.param:
        monkeypatch.setattr(hand_written_gradients, "_TRANSFORMS_SEE_INFERENCE_MODE", False)


@pytest.fixture(params=[False, True], ids=["earlier", "within"])
def seen(request):
    """Return samples as calls in inference mode get them: made earlier, or within it, which autograd cannot keep."""
    return (lambda x: x.clone()) if request.param else (lambda x: x)


@every_kernel
def test_gradients_of_the_witness_function(kernel, seen):
    real, fake = samples()
    expected = witness_gradient(fake, real=real, fake=fake, kernel=kernel)
    with torch.inference_mode():
        found = witness_gradient(seen(fake), real=seen(real), fake=seen(fake), kernel=kernel)
    assert expected.any()
    assert_close(found, expected.detach())
    assert not found.requires_grad


@pytest.mark.parametrize("kind", [OwnFunction, Weighted])
def test_kernels_that_transforms_or_autograd_refuse(kind, seen):
    real, fake = samples()
    expected = witness_gradient(fake, real=real, fake=fake, kernel=RBFKernel(2.0))
    with torch.inference_mode():
        assert_close(witness_gradient(seen(fake), real=seen(real), fake=seen(fake), kernel=kind()), expected)


def test_distances_are_as_precise_as_the_kernel_demands(seen):
    real = 100 * torch.randn(20, 3)
    fake = real + 5e-3 * torch.randn(20, 3)
    expected = mmd2(real.double(), fake.double(), Sharp())
    with torch.inference_mode():
        assert_close(mmd2(seen(real), seen(fake), Sharp()).double(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", ["own", "trained"])
def test_a_kernel_that_reaches_all_scores_is_not_warned_of(name, seen):
    real, fake = samples()
    with torch.inference_mode():
        MMDLoss(KERNELS[name]).generator(real=seen(real), fake=seen(fake))  # warnings are errors


@pytest.mark.parametrize("rank", [None, 4])
def test_derivatives_of_features(rank, seen):
    (real, fake), features = samples(), nn.Sequential(nn.Linear(3, 2), nn.Tanh())
    expected = gradient_constrained_mmd2(real, fake, RBFKernel(), features=features, rank=rank)
    with torch.inference_mode():
        found = gradient_constrained_mmd2(seen(real), seen(fake), RBFKernel(), features=features, rank=rank)
    assert_close(found, expected.detach())


@pytest.mark.parametrize("rank", [None, 4])
@pytest.mark.parametrize(
    "kernel", [RBFKernel(), KERNELS["trained"], PolynomialKernel(2), Cubic()], ids=lambda kernel: type(kernel).__name__
)
def test_derivatives_of_kernels(kernel, rank, seen):
    real, fake = samples()
    expected = gradient_constrained_mmd2(real, fake, kernel, rank=rank)
    with torch.inference_mode():
        found = gradient_constrained_mmd2(seen(real), seen(fake), kernel, rank=rank)
    assert_close(found, expected.detach())
