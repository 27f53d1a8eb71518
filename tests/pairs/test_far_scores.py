"""Scores of which any part is far away: values and gradients against squared differences in float64."""

from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from torch_mmd_losses import (
    EnergyKernel,
    Kernel,
    LaplaceKernel,
    MaternKernel,
    MMDLoss,
    RationalQuadraticKernel,
    RationalQuadraticMix,
    RBFBKernel,
    RBFKernel,
    RBFMix,
    ScaledMMDLoss,
    distances,
    gradient_constrained_mmd2,
    mmd2,
    mmd2_and_variance,
    mmd2_blocks,
    mmd2_fourier,
    mmd_test,
    relative_mmd_test,
    witness,
)
from torch_mmd_losses.kernels.contract import Conditioning
from torch_mmd_losses.pairs import plan, tile_distances, tiles
from torch_mmd_losses.precision import has_fast_float64

TOLERANCE = 1e-5
"""Of the sum of the absolute terms of a value or a gradient."""


class InverseMultiquadric(Kernel):
    def from_sq_dist(self, sq_dist):
        return (1 + sq_dist).rsqrt()


KERNELS = {
    "rbf": lambda d: RBFKernel(d**0.5),
    "rbf_mix": lambda d: RBFMix(tuple(factor * d**0.5 for factor in (0.25, 0.5, 1, 2, 4))),
    "rbf_b": lambda d: RBFBKernel(d**0.5),
    "rational_quadratic": lambda d: RationalQuadraticKernel(0.7),
    "rational_quadratic_mix": lambda d: RationalQuadraticMix(),
    "energy": lambda d: EnergyKernel(),
    "laplace": lambda d: LaplaceKernel(d**0.5),
    "matern_32": lambda d: MaternKernel(1.5, d**0.5),
    "matern_52": lambda d: MaternKernel(2.5, d**0.5),
    "product": lambda d: RBFKernel(d**0.5) * RationalQuadraticKernel(0.7),
    "sum": lambda d: 0.5 * RBFKernel(d**0.5) + EnergyKernel(),
    "own": lambda d: InverseMultiquadric(),
}


def one(real, fake, far):
    real[0] += far


def some(real, fake, far):
    real[: len(real) // 8] += far * torch.randn_like(real[: len(real) // 8])
    fake[: len(fake) // 8] += far * torch.randn_like(fake[: len(fake) // 8])


def cluster(real, fake, far):
    real[: len(real) // 8] += far
    fake[: len(fake) // 8] += far


def halves(real, fake, far):
    real[: len(real) // 2] += far
    fake[: len(fake) // 2] += far


def apart(real, fake, far):
    fake += far


def everything(real, fake, far):
    real += far
    fake += far


PARTS = (one, some, cluster, halves, apart, everything)


def samples(part, far, m, n, d):
    torch.manual_seed(0)
    real, fake = torch.randn(m, d), 1.2 * torch.randn(n, d) + 0.3
    part(real, fake, far)
    return real, fake


def exact(kernel, a, b):
    """Return kernel values and slopes at sums of squared differences, in float64."""
    sq_dist = sum((p.unsqueeze(1) - q).square() for p, q in zip(a.double().T, b.double().T, strict=True))
    sq_dist.requires_grad_()
    values = sum(s.factor * s.profile.value(sq_dist) for s in kernel._summands())
    return values.detach(), torch.autograd.grad(values.sum(), sq_dist)[0]


def reference(kernel, real, fake):
    """Return MMD^2, its gradient by all scores, and the sums of the absolute terms of both."""
    m, n = len(real), len(fake)
    stack = torch.cat([real, fake]).double()
    values, slopes = exact(kernel, stack, stack)
    weights = torch.full_like(values, -1 / (m * n))
    weights[:m, :m], weights[m:, m:] = 1 / (m * (m - 1)), 1 / (n * (n - 1))
    weights.fill_diagonal_(0)
    terms = [4 * weights * slopes * (column.unsqueeze(1) - column) for column in stack.T]
    gradient = torch.stack([term.sum(1) for term in terms], 1)
    of_gradient = torch.stack([term.abs().sum(1) for term in terms], 1).norm(dim=1)
    return (weights * values).sum(), gradient, (weights * values).abs().sum(), of_gradient


@pytest.mark.parametrize("far", [10.0, 100.0, 1e4, 1e7, 1e12])
@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(("m", "n", "d"), [(64, 48, 16), (40, 64, 1), (90, 70, 8)], ids=["dense", "line", "tiles"])
def test_mmd2_and_its_gradient(name, part, far, m, n, d, monkeypatch):
    if (m, n) == (90, 70):
        monkeypatch.setattr(plan, "DENSE_UP_TO", 0)
        monkeypatch.setattr(tiles, "CPU_TILE", 32)
    compare(name, part, far, m, n, d)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
@pytest.mark.parametrize("name", KERNELS)
def test_mmd2_and_its_gradient_in_tiles_of_the_usual_size(name, part):
    compare(name, part, 1e7, 300, 260, 8)


def compare(name, part, far, m, n, d):
    kernel = KERNELS[name](d)
    real, fake = samples(part, far, m, n, d)
    expected, gradient, terms, of_gradient = reference(kernel, real, fake)
    real, fake = real.requires_grad_(), fake.requires_grad_()
    value = mmd2(real, fake, kernel)
    found = torch.cat(torch.autograd.grad(value, (real, fake))).double()
    assert abs(value.double() - expected) <= TOLERANCE * terms
    assert ((found - gradient).norm(dim=1) <= TOLERANCE * of_gradient + 1e-30).all()


@pytest.mark.parametrize("far", [100.0, 1e7])
@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
@pytest.mark.parametrize("name", ["rbf", "rational_quadratic_mix", "energy"])
def test_other_estimates(name, part, far):
    kernel, precise = KERNELS[name](4), torch.float64
    real, fake = samples(part, far, 64, 64, 4)
    values, _ = exact(kernel, torch.cat([real, fake]), torch.cat([real, fake]))
    scale, other = float(values.abs().mean()), fake.flip(0) + 0.1
    assert_close(kernel(real, fake).double(), values[:64, 64:], rtol=1e-5, atol=1e-6 * scale)
    expected = values[:, :64].mean(1) - values[:, 64:].mean(1)
    found = witness(torch.cat([real, fake]), real, fake, kernel).double()
    assert_close(found, expected, rtol=0, atol=TOLERANCE * scale)
    for estimate in (
        lambda x, y: MMDLoss(kernel, 0.5).discriminator(x, y),
        lambda x, y: torch.stack(MMDLoss(kernel, 0.5).terms(x, y)),
        lambda x, y: mmd2_blocks(x, y, kernel, block_size=16).value,
        lambda x, y: mmd2_and_variance(x, y, kernel).value,
        lambda x, y: relative_mmd_test(x, y, other.to(x.dtype), kernel).difference,
        lambda x, y: mmd_test(x, y, kernel, permutations=1, generator=torch.Generator().manual_seed(0)).statistic,
    ):
        assert_close(
            estimate(real, fake).double(), estimate(real.to(precise), fake.to(precise)), rtol=0, atol=TOLERANCE * scale
        )


@pytest.mark.parametrize("far", [100.0, 1e4, 1e7])
@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
@pytest.mark.parametrize("name", ["rbf", "rational_quadratic_mix", "energy"])
def test_gradients_of_blocks(name, part, far):
    kernel = KERNELS[name](4)
    real, fake = samples(part, far, 32, 32, 4)
    leaves = [real.requires_grad_(), fake.requires_grad_()]
    found = torch.cat(torch.autograd.grad(mmd2_blocks(*leaves, kernel, block_size=16).value, leaves)).double()
    for start in (0, 16):
        rows = slice(start, start + 16)
        _, gradient, _, of_gradient = reference(kernel, real[rows].detach(), fake[rows].detach())
        mine = torch.cat([found[:32][rows], found[32:][rows]])
        assert ((2 * mine - gradient).norm(dim=1) <= TOLERANCE * of_gradient + 1e-30).all()


def test_tiles_on_other_devices_read_no_number():
    real, fake = torch.empty(400, 3, device="meta", requires_grad=True), torch.empty(300, 3, device="meta")
    for kernel in (RBFKernel(), EnergyKernel(), InverseMultiquadric()):
        mmd2(real, fake, kernel).backward()
        assert real.grad.device.type == "meta"


@pytest.mark.parametrize("fast", [True, False])
def test_tiles_on_other_devices_are_in_float64_where_that_is_fast(fast, monkeypatch):
    monkeypatch.setattr(distances, "has_fast_float64", lambda device: fast)
    scores = torch.empty(400, 3, device="meta")
    (way,) = tile_distances.ways_of_distances(scores, scores, Conditioning(), None)
    assert way.left.dtype == (torch.float64 if fast else torch.float32)


@pytest.mark.parametrize(
    ("hip", "major", "minor", "fast"),
    [
        (None, 6, 0, True),  # P100
        (None, 7, 5, False),  # T4
        (None, 8, 0, True),  # A100
        (None, 8, 6, False),  # RTX 3090
        (None, 9, 0, True),  # H200
        (None, 10, 3, False),  # B300
        (None, 12, 0, False),  # RTX 5090
        ("7.0", 9, 4, True),  # MI300X
        ("7.0", 11, 0, False),  # RX 7900
    ],
)
def test_gpus_with_fast_float64(hip, major, minor, fast, monkeypatch):
    monkeypatch.setattr(torch.version, "hip", hip)
    properties = SimpleNamespace(major=major, minor=minor)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert has_fast_float64(torch.device("cuda")) is fast
    assert not has_fast_float64(torch.device("mps"))


@pytest.mark.parametrize("far", [100.0, 1e5])
@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
@pytest.mark.parametrize("name", ["rbf", "rational_quadratic_mix", "energy", "own"])
def test_function_transforms(name, part, far):
    kernel = KERNELS[name](4)
    real, fake = samples(part, far, 40, 24, 4)
    expected, gradient, terms, of_gradient = reference(kernel, real, fake)
    found, value = torch.func.grad_and_value(lambda x, y: mmd2(x, y, kernel), argnums=(0, 1))(real, fake)
    assert abs(value.double() - expected) <= TOLERANCE * terms
    assert ((torch.cat(found).double() - gradient).norm(dim=1) <= TOLERANCE * of_gradient + 1e-30).all()


def scaled(real, fake):
    return ScaledMMDLoss().generator(real=2 * real, fake=fake, inputs=real)


def constrained(real, fake):
    return gradient_constrained_mmd2(real, fake, RationalQuadraticMix())


@pytest.mark.parametrize("far", [1e4, 1e7])
@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
@pytest.mark.parametrize(("loss", "m", "n", "size"), [(scaled, 40, 24, 0.01), (constrained, 10, 8, None)])
def test_losses_with_gradients_of_critics(loss, m, n, size, part, far):
    real, fake = samples(part, far, m, n, 2)

    def value_and_gradient(dtype):
        x, y = real.to(dtype).requires_grad_(), fake.to(dtype).requires_grad_()
        value = loss(x, y)
        gradients = torch.autograd.grad(value, (x, y), materialize_grads=True)
        return value.detach().double(), torch.cat(gradients).double()

    for found, expected in zip(value_and_gradient(torch.float32), value_and_gradient(torch.float64), strict=True):
        assert_close(found, expected, rtol=0, atol=TOLERANCE * (size or float(expected.abs().max())))


@pytest.mark.parametrize("far", [100.0, 1e5])
@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_fourier_features(part, far):
    real, fake = samples(part, far, 64, 64, 4)

    def estimate(x, y):
        x = x.clone().requires_grad_()
        value = mmd2_fourier(x, y, RBFKernel(2.0), frequencies=50, generator=torch.Generator().manual_seed(0))
        return value.double(), torch.autograd.grad(value, x)[0].double()

    (value, gradient), (expected, of_expected) = estimate(real, fake), estimate(real.double(), fake.double())
    assert_close(value, expected, rtol=0, atol=TOLERANCE)
    assert_close(gradient, of_expected, rtol=0, atol=TOLERANCE / 64)


@pytest.mark.parametrize("size", [1, 100])
def test_a_test_of_samples_with_an_outlier_finds_the_difference(size):
    torch.manual_seed(0)
    real, fake = torch.randn(100, 4), torch.randn(100, 4) + 1
    real[0] = 1e7 * size
    seeded = [torch.Generator().manual_seed(0) for _ in range(2)]
    found = mmd_test(real, fake, generator=seeded[0])
    assert found.p_value == 0.001
    assert found.p_value == mmd_test(real.double(), fake.double(), generator=seeded[1]).p_value


@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("n", [3, 7, 17, 64, 300])
def test_scores_that_coincide_have_no_gradient_under_the_energy_kernel(n, d):
    for value in (0.7, 1e-3, 12345.678):
        real, fake = torch.full((n, d), value, requires_grad=True), torch.full((n, d), value, requires_grad=True)
        for gradient in torch.autograd.grad(mmd2(real, fake, EnergyKernel()), (real, fake)):
            assert not gradient.any()
