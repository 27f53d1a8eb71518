"""Scores and bandwidths from 1e-30 to 1e30 in float32: scaling both changes nothing."""

import math

import pytest
import torch
from cases import scores
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from torch_mmd_losses import (
    EnergyKernel,
    InverseMultiquadricKernel,
    Kernel,
    L1LaplaceKernel,
    LaplaceKernel,
    LinearKernel,
    MaternKernel,
    MMDLoss,
    RationalQuadraticKernel,
    RationalQuadraticMix,
    RBFBKernel,
    RBFKernel,
    RBFMix,
    ScaledMMDLoss,
    mmd2,
    mmd2_and_variance,
    mmd2_blocks,
    mmd2_fourier,
    mmd_test,
    relative_mmd_test,
    witness,
)
from torch_mmd_losses.kernels.summands import worst_conditioning
from torch_mmd_losses.pairs import plan
from torch_mmd_losses.pairs.tile_distances import ways_of_distances

flat = pytest.mark.filterwarnings("ignore:.*(close together|far apart):torch_mmd_losses.UsageWarning")
"""For kernels that tell no scores apart, of which the library warns."""

pytestmark = pytest.mark.filterwarnings("ignore::torch_mmd_losses.UsageWarning")  # of flat kernels

KERNELS = {
    "rbf": lambda c: RBFKernel(c),
    "rbf_mix": lambda c: RBFMix((c / 2, c)),
    "rbf_b": lambda c: RBFBKernel(c, lower=0.25 * c * c, upper=4 * c * c),
    "rational_quadratic": lambda c: RationalQuadraticKernel(0.7, c),
    "rational_quadratic_large": lambda c: RationalQuadraticKernel(1e4, c),
    "rational_quadratic_gaussian": lambda c: RationalQuadraticKernel(1e25, c),
    "rational_quadratic_flat": lambda c: RationalQuadraticKernel(1e-7, c),
    "rational_quadratic_mix": lambda c: RationalQuadraticMix(length=c),
    "energy": lambda c: EnergyKernel() / c,
    "laplace": lambda c: LaplaceKernel(c, floor=0.8 * c),
    "matern_12": lambda c: MaternKernel(0.5, c),
    "matern_32": lambda c: MaternKernel(1.5, c),
    "matern_52": lambda c: MaternKernel(2.5, c),
    "inverse_multiquadric": lambda c: InverseMultiquadricKernel(c, -0.7),
    "l1_laplace": lambda c: L1LaplaceKernel(c),
    "product": lambda c: RBFKernel(c) * MaternKernel(1.5, c),
    "columns": lambda c: (
        RBFKernel(c).on(slice(0, 2)) * RBFKernel(2 * c).on(slice(2, 3)) + LaplaceKernel(c).on(slice(1, 3))
    ),
    "sum": lambda c: 2 * RBFKernel(c) + RationalQuadraticKernel(2.0, c) / 3,
    "sum_with_energy": lambda c: RBFKernel(c) + EnergyKernel() / c,
}

WITHOUT_FREQUENCIES = ("energy", "sum_with_energy", "laplace", "l1_laplace", "product", "columns")
"""Kernels whose spectral measure is not known."""

WITHOUT_SLOPE = ("energy", "sum_with_energy", "laplace", "matern_12", "l1_laplace", "columns")
"""Kernels that are not functions of the distance with a slope at zero."""

powers = st.integers(-97, 98).map(lambda exponent: 2.0**exponent)  # from 6e-30 to 3e29

TOLERANCE = 1e-5
"""Of the largest number."""


def close(found, expected, same=None):
    """Compare with float64 at scale one. `same` is float32 at scale one, which may have lost digits by cancellation."""
    scale = float(expected.abs().max()) or 1.0
    lost = 0.0 if same is None else float((same.double() - expected.double()).abs().max())
    assert_close(found.double(), expected.double(), rtol=0, atol=TOLERANCE * scale + 2 * lost)


def samples(m, n, far):
    real, fake = scores(m, 3, 1), scores(n, 3, 2, scale=1.2, shift=0.3)
    real[0] += far
    return real.float().double(), fake.float().double()


def gradients(value, leaves, c):
    return c * torch.cat(torch.autograd.grad(value, leaves)).double()


def estimates(kernel, real, fake, c, tile_size=None):
    """Return values and gradients, which are multiplied by the scale."""
    leaves = [real.clone().requires_grad_(), fake.clone().requires_grad_()]
    loss = MMDLoss(kernel, 0.5, tile_size=tile_size)
    for value in (mmd2(*leaves, kernel), loss.discriminator(*leaves)):
        yield value.detach()
        yield gradients(value, leaves, c)
    yield from loss.terms(real, fake)


@flat  # the one with the tiny alpha
@pytest.mark.parametrize("far", [0.0, 1e3])
@pytest.mark.parametrize("way", ["dense", "tiled"])
@pytest.mark.parametrize("name", KERNELS)
@settings(max_examples=6)
@given(c=powers)
def test_values_and_gradients_at_any_scale(name, way, far, c):
    with pytest.MonkeyPatch.context() as patch:
        if way == "tiled":
            patch.setattr(plan, "DENSE_UP_TO", 0)
        real, fake = samples(9, 7, far)
        expected = estimates(KERNELS[name](1.0), real, fake, 1.0, 5)
        found = estimates(KERNELS[name](c), (c * real).float(), (c * fake).float(), c, 5)
        for p, q in zip(found, expected, strict=True):
            close(p, q)


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
@settings(max_examples=4)
@given(c=powers)
def test_other_functions_at_any_scale(name, c):
    def numbers(real, fake, c):
        kernel = KERNELS[name](c)
        leaves = [real.clone().requires_grad_(), fake.clone().requires_grad_()]
        yield kernel(real, fake)
        yield witness(real, real, fake, kernel)
        yield from mmd2_and_variance(real, fake, kernel)
        yield relative_mmd_test(real, fake, fake.flip(0) * 1.5, kernel).difference
        yield mmd_test(real, fake, kernel, permutations=9, generator=torch.Generator().manual_seed(0)).p_value
        blocks = mmd2_blocks(*leaves, kernel, block_size=4)
        yield from (number.detach() for number in blocks)
        yield gradients(blocks.value, leaves, c)
        # Under a function transform, the library reads no number of the scores.
        traced, value = torch.func.grad_and_value(lambda a: mmd2(a, fake, kernel))(real)
        yield value
        yield c * traced.double()
        yield torch.func.grad_and_value(lambda a: mmd2_blocks(a, fake, kernel, block_size=4).value)(real)[1]
        (gradient,) = torch.autograd.grad(mmd2(*leaves, kernel), leaves[:1], create_graph=True)
        (second,) = torch.autograd.grad((c * gradient).square().sum(), leaves[:1])
        yield c * second.double()
        if name not in WITHOUT_FREQUENCIES:
            seeded = torch.Generator().manual_seed(0)
            value = mmd2_fourier(*leaves, kernel, frequencies=40, generator=seeded)
            yield value.detach()
            yield gradients(value, leaves, c)

    real, fake = samples(8, 8, 0.0)
    found = numbers((c * real).float(), (c * fake).float(), c)
    for each in zip(found, numbers(real, fake, 1.0), numbers(real.float(), fake.float(), 1.0), strict=True):
        close(*each)


@pytest.mark.parametrize("name", [name for name in KERNELS if name not in WITHOUT_SLOPE])
@pytest.mark.parametrize("scale", ["practical", "exact"])
@settings(max_examples=4)
@given(c=powers)
def test_scaled_mmd_at_any_scale(name, scale, c):
    inputs, other = scores(6, 2, 1).requires_grad_(), scores(5, 2, 2)
    narrow = inputs.detach().float().requires_grad_()

    def critic(x, c):
        return c * (x.square().sum(1) - x[:, 0])

    expected = ScaledMMDLoss(KERNELS[name](1.0), scale=scale).both(critic(inputs, 1.0), critic(other, 1.0), inputs)
    loss = ScaledMMDLoss(KERNELS[name](c), scale=scale)
    found = loss.both(critic(narrow, c), critic(other.float(), c), narrow)
    for p, q in zip(found, expected, strict=True):
        close(p.detach(), q.detach())
        close(
            torch.autograd.grad(p, narrow, retain_graph=True)[0], torch.autograd.grad(q, inputs, retain_graph=True)[0]
        )


@given(c=powers, n=st.integers(2, 9))
def test_the_energy_distance_has_the_scale_of_the_scores(c, n):
    real, fake = scores(n, 2, 1), scores(n + 1, 2, 2, shift=0.5)
    expected = c * mmd2(real, fake, EnergyKernel())
    close(mmd2((c * real).float(), (c * fake).float(), EnergyKernel()), expected)
    test = mmd_test((c * real).float(), (c * fake).float(), EnergyKernel(), generator=torch.Generator().manual_seed(0))
    assert test.p_value == mmd_test(real, fake, EnergyKernel(), generator=torch.Generator().manual_seed(0)).p_value


@pytest.mark.parametrize("exponent", [-72, -70, -68, 62, 64, 66])
def test_squares_that_are_subnormal_or_infinite_in_float32(exponent):
    torch.manual_seed(0)
    real, fake = torch.randn(6, 2, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64) + 0.5
    expected = 2.0**exponent * mmd2(real, fake, EnergyKernel())
    close(mmd2((2.0**exponent * real).float(), (2.0**exponent * fake).float(), EnergyKernel()), expected)


@given(factor=powers, weight=powers)
def test_factors_and_weights_at_any_scale(factor, weight):
    real, fake = samples(9, 7, 0.0)
    leaves = [real.float().requires_grad_(), fake.float().requires_grad_()]
    precise = [real.clone().requires_grad_(), fake.clone().requires_grad_()]
    for kernel, plain in (
        (factor * RBFKernel(), RBFKernel()),
        (RBFMix((1.0, 2.0), weights=(weight, weight)), RBFMix((1.0, 2.0))),
        (RationalQuadraticMix((1.0, 2.0), weights=(weight, weight)), RationalQuadraticMix((1.0, 2.0))),
    ):
        by = factor if plain is not kernel and isinstance(plain, RBFKernel) else weight
        expected = mmd2(*precise, plain)
        value = mmd2(*leaves, kernel)
        close(value.detach() / by, expected.detach())
        close(gradients(value, leaves, 1 / by), gradients(expected, precise, 1.0))


@flat
@pytest.mark.parametrize("sigma", [1e-30, 1e-25, 5e-20, 1e-10, 1e10, 5e19, 1e25, 1e30])
def test_kernels_far_narrower_or_wider_than_the_scores(sigma):
    real, fake = (x.float() for x in samples(6, 5, 0.0))
    for kernel in (RBFKernel(sigma), RBFMix((sigma, sigma)), RBFBKernel(sigma), RationalQuadraticKernel(2.0, sigma)):
        gram = kernel(real, real)
        peak = gram[0, 0]
        assert_close(gram, peak * (torch.eye(6) if sigma < 1 else torch.ones(6, 6)), rtol=1e-6, atol=1e-6)
        x = real.clone().requires_grad_()
        for value in (
            mmd2(x, fake, kernel),
            MMDLoss(kernel).discriminator(x, fake),
            mmd2(x, fake, kernel + LinearKernel()),
        ):
            assert value.isfinite()
            assert torch.autograd.grad(value, x)[0].isfinite().all()
        # On distances of one's own, too.
        values = kernel.from_sq_dist(torch.tensor([0.0, 1e-38, 1.0, 1e38]))
        assert values.isfinite().all()
        assert values[0] == peak


def test_where_the_host_reads_no_number_the_kernel_decides():
    a, b = torch.empty(4, 3, device="meta"), torch.empty(5, 3, device="meta")
    for kernel, dtype in (
        (RBFKernel(), torch.float32),
        (RBFKernel(1e-25), torch.float64),
        (1e20 * RBFKernel(), torch.float64),
    ):
        conditioning = worst_conditioning(kernel._summands(), a)
        for distances in (*ways_of_distances(a, b, conditioning, None), *ways_of_distances(a, a, conditioning, None)):
            assert distances.a.dtype == distances.b.dtype == dtype


@flat
def test_a_kernel_of_ones_own_beside_a_kernel_of_another_scale():
    class Narrow(Kernel):
        """A user's kernel is given squared distances in the dtype of the scores: far ones are infinite."""

        def from_sq_dist(self, sq_dist):
            return 1 / (1 + sq_dist)

    real, fake = (1e25 * x.float() for x in samples(6, 5, 0.0))
    assert_close(mmd2(real, fake, Narrow() + RBFKernel(1e25)), mmd2(real, fake, RBFKernel(1e25)))
    assert math.isfinite(mmd2(real, fake, Narrow()))
