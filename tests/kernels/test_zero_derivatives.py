"""Kernels whose derivatives are zero: constants, and functions that are constant in steps."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from torch_mmd_losses import (
    Kernel,
    MMDLoss,
    MMDReference,
    drift,
    grouped_mmd2,
    kernel_sums,
    mmd2,
    mmd2_and_variance,
    mmd2_blocks,
    witness,
    witness_gradient,
)

pytestmark = pytest.mark.filterwarnings("ignore::torch_mmd_losses.UsageWarning")


class Steps(Kernel):
    def from_sq_dist(self, sq_dist):
        return (sq_dist < 1).to(sq_dist.dtype)


class Constant(Kernel):
    def forward(self, a, b):
        return torch.ones(len(a), len(b), dtype=a.dtype)


CALLS = {
    "mmd2": mmd2,
    "mmd2 with weights": lambda x, y, kernel: mmd2(x, y, kernel, real_weights=torch.ones_like(x[:, 0])),
    "MMDLoss": lambda x, y, kernel: MMDLoss(kernel, lambda_=1.0)(real=x, fake=y),
    "grouped_mmd2": lambda x, y, kernel: grouped_mmd2(x[None], y[None], kernel).sum(),
    "mmd2_blocks": lambda x, y, kernel: mmd2_blocks(x, y, kernel, block_size=len(x) // 2).value,
    "value": lambda x, y, kernel: mmd2_and_variance(x, y, kernel, tile_size=64).value,
    "variance": lambda x, y, kernel: mmd2_and_variance(x, y, kernel, tile_size=64).variance,
    "witness": lambda x, y, kernel: witness(x, y, y + 1, kernel).sum(),
    "kernel_sums": lambda x, y, kernel: kernel_sums(x, y, kernel)[0].sum(),
    "MMDReference": lambda x, y, kernel: MMDReference(y.detach(), kernel).mmd2(x) + 0 * y.sum(),
    "attraction": lambda x, y, kernel: MMDReference(y.detach(), kernel).attraction(x).sum() + 0 * y.sum(),
}
"""Functions of two samples whose derivatives are zero for such kernels."""

SIZES = [20, 300]
"""Numbers of samples for one matrix and for tiles."""


class Additive(Kernel):
    def forward(self, a, b):
        return a.sum(1, keepdim=True) + b.sum(1)


KERNELS = {"steps": Steps(), "constant": Constant()}


def samples(m):
    return torch.randn(m, 3).requires_grad_(), torch.randn(m, 3).requires_grad_()


@pytest.mark.parametrize("m", SIZES)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", CALLS)
def test_gradients_of_a_kernel_that_is_constant_in_steps_are_zero(name, kernel, m):
    real, fake = samples(m)
    CALLS[name](real, fake, KERNELS[kernel]).backward()
    zeros = torch.zeros(m, 3)
    assert_close((real.grad, fake.grad), (zeros, zeros), rtol=0, atol=0)


@pytest.mark.parametrize("m", SIZES)
@pytest.mark.parametrize("kernel", [*KERNELS.values(), Additive()], ids=[*KERNELS, "additive"])
@pytest.mark.parametrize("name", [name for name in CALLS if name != "variance"])
def test_second_derivatives_are_zero_where_the_slope_is_constant(name, kernel, m):
    real, fake = samples(m)
    value = CALLS[name](real, fake, kernel)
    first = torch.autograd.grad(value, (real, fake), retain_graph=True)
    gradients = torch.autograd.grad(value, (real, fake), create_graph=True)
    assert_close(gradients, first)
    # As in training, where a penalty of the gradients is added to a loss.
    (value + sum((gradient * torch.randn(m, 3)).sum() for gradient in gradients)).backward()
    assert_close((real.grad, fake.grad), first)


@pytest.mark.parametrize("m", SIZES)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", [name for name in CALLS if name != "variance"])
def test_zero_gradients_have_a_graph_for_penalties(name, kernel, m):
    real, fake = samples(m)
    gradients = torch.autograd.grad(CALLS[name](real, fake, KERNELS[kernel]), (real, fake), create_graph=True)
    sum(gradient.square().sum() for gradient in gradients).backward()
    assert_close(real.grad, torch.zeros(m, 3))
    assert fake.grad is None or not fake.grad.any()  # a reference is a constant


def test_gradients_of_a_drift_by_a_kernel_that_is_constant_in_steps_have_a_graph():
    real, fake = samples(20)
    value = (drift(fake, real, kernel=Steps(), normalise="none") * torch.randn(20, 3)).sum()
    first = torch.autograd.grad(value, (real, fake), retain_graph=True)
    assert_close(torch.autograd.grad(value, (real, fake), create_graph=True), first)


# Trained kernels, whose values have the graph of their parameters.


class TrainedSteps(Kernel):
    def __init__(self):
        super().__init__()
        self.height = nn.Parameter(torch.tensor(2.0))

    def from_sq_dist(self, sq_dist):
        return (sq_dist < 4) * self.height.exp()


class TrainedConstant(Kernel):
    def __init__(self):
        super().__init__()
        self.height = nn.Parameter(torch.tensor(2.0))

    def forward(self, a, b):
        return self.height.exp().expand(len(a), len(b))


OF_TRAINED = {name: call for name, call in CALLS.items() if name not in ("MMDReference", "attraction")} | {
    "witness_gradient": lambda x, y, kernel: witness_gradient(x, real=y, fake=y + 1, kernel=kernel).sum()
}


@pytest.mark.parametrize("m", SIZES)
@pytest.mark.parametrize("kernel", [TrainedSteps(), TrainedConstant()], ids=["steps", "constant"])
@pytest.mark.parametrize("name", OF_TRAINED)
def test_gradients_of_trained_kernels_that_are_constant_in_steps_are_zero_with_a_graph(name, kernel, m):
    real, fake = samples(m)
    gradients = torch.autograd.grad(OF_TRAINED[name](real, fake, kernel), (real, fake), create_graph=True)
    zeros = torch.zeros(m, 3)
    assert_close([gradient.detach() for gradient in gradients], [zeros, zeros], rtol=0, atol=0)
    sum(gradient.square().sum() for gradient in gradients).backward()
    assert_close([real.grad, fake.grad], [zeros, zeros], rtol=0, atol=0)


@pytest.mark.parametrize("m", SIZES)
def test_the_height_of_trained_steps_is_trained(m):
    kernel, (real, fake) = TrainedSteps(), samples(m)
    value = mmd2(real, fake, kernel)
    (gradient,) = torch.autograd.grad(value, kernel.height)
    assert_close(gradient, value.detach())  # a multiple of the exponential
