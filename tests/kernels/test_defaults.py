"""PyTorch's default device and default dtype change no number: every tensor says where it lies and what it is."""

from contextlib import contextmanager

import pytest
import torch
from cases import scores
from torch.testing import assert_close

from torch_mmd_losses import (
    EnergyKernel,
    Kernel,
    LinearKernel,
    MMDLoss,
    PolynomialKernel,
    RationalQuadraticMix,
    RBFBKernel,
    RBFKernel,
    RBFMix,
    ScaledMMDLoss,
    gradient_constrained_mmd2,
    gradient_penalty,
    interpolation_points,
    l2_penalty,
    mmd2,
    mmd2_and_variance,
    mmd2_blocks,
    mmd2_fourier,
    mmd_test,
    relative_mmd_test,
    witness,
)
from torch_mmd_losses.pairs import dense


class Own(Kernel):
    def from_sq_dist(self, sq_dist):
        return (1 + sq_dist).rsqrt()


def _seeded():
    return torch.Generator("cpu").manual_seed(0)


def _everything(real, fake):
    """Return a number or more of each public function."""
    mixture = RBFMix() + RationalQuadraticMix(length=2) + 0.5 * LinearKernel()
    every = mixture + PolynomialKernel() + EnergyKernel() + RBFBKernel() + Own()
    leaf = real.clone().requires_grad_()
    value = mmd2(leaf, fake, every)
    (gradient,) = torch.autograd.grad(value, leaf, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), leaf)
    many, others = real.repeat(33, 1), fake.repeat(33, 1) + 0.1
    large = many.clone().requires_grad_()
    squares = real.clone().requires_grad_()
    critic = squares.square().sum(1)
    yield from (value.detach(), gradient.detach(), second)
    yield torch.autograd.grad(mmd2(large, others, every), large)[0]
    yield from MMDLoss(every, 0.5).both(real, fake)
    yield from MMDLoss(every, 0.5).terms(real, fake)
    yield from ScaledMMDLoss().both(critic, fake.square().sum(1), squares)
    yield from mmd2_and_variance(real, fake, every)
    yield from mmd2_blocks(real, fake, every, block_size=2)
    yield mmd2_fourier(real, fake, mixture, frequencies=9, generator=_seeded())
    yield from mmd_test(real, fake, every, permutations=9, generator=_seeded())
    yield from mmd_test(real, fake, permutations=9, generator=_seeded())
    yield from relative_mmd_test(real, fake, fake + 0.1, every)
    yield gradient_constrained_mmd2(real, fake, RBFKernel())
    yield gradient_constrained_mmd2(real, fake, RBFKernel(), rank=3)
    yield witness(real, real, fake, every)
    points = interpolation_points(real, fake, generator=_seeded())
    yield points.detach()
    yield gradient_penalty(points.square().sum(1), points)
    yield l2_penalty(real, fake)
    yield from every.state_dict().values()
    yield every(real, fake)


@contextmanager
def _dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _device(device):
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


CONTEXTS = {
    "float64": lambda: _dtype(torch.float64),
    "float16": lambda: _dtype(torch.float16),
    "meta": lambda: torch.device("meta"),
    "meta by default": lambda: _device("meta"),
}


@pytest.fixture(scope="module")
def expected():
    return [x.detach() for x in _everything(*_samples())]


def _samples():
    return scores(8, 2, 1).float(), scores(8, 2, 2, shift=0.3).float()


@pytest.mark.parametrize("name", CONTEXTS)
def test_defaults_of_pytorch_change_nothing(name, expected):
    real, fake = _samples()
    for cached in (dense._zero, dense.pair_weights, dense.limit_matrices):
        cached.cache_clear()
    with CONTEXTS[name]():
        found = [x.detach() for x in _everything(real, fake)]
    assert_close(found, expected, rtol=0, atol=0)
    assert found[0].device.type == "cpu"
