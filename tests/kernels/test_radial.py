"""Gaussians, rational quadratics and the energy kernel."""

import math

import pytest
import torch
from cases import scores
from hypothesis import example, given
from hypothesis import strategies as st
from torch.testing import assert_close

from torch_mmd_losses import (
    EnergyKernel,
    MMDLoss,
    RationalQuadraticKernel,
    RationalQuadraticMix,
    RBFBKernel,
    RBFKernel,
    RBFMix,
    gradient_constrained_mmd2,
    hand_written_gradients,
    mmd2,
    mmd2_fourier,
)
from torch_mmd_losses.kernels import spectral_measure
from torch_mmd_losses.pairs import plan

positive = st.floats(0.05, 20.0)


def test_energy_gram_is_conditionally_negative():
    a = scores(7, 3)
    centring = torch.eye(7, dtype=torch.float64) - 1 / 7
    assert torch.linalg.eigvalsh(centring @ EnergyKernel()(a, a) @ centring)[0] >= -1e-9


@given(sigma=positive, factor=positive, alpha=positive)
def test_bandwidths_have_the_units_of_the_scores(sigma, factor, alpha):
    a, b = scores(3, 2, 1), scores(4, 2, 2)
    assert_close(RBFKernel(factor * sigma)(factor * a, factor * b), RBFKernel(sigma)(a, b), rtol=1e-9, atol=1e-12)
    assert_close(EnergyKernel()(factor * a, factor * b), factor * EnergyKernel()(a, b))
    rational = RationalQuadraticKernel(alpha)(a, b)
    assert_close(rational.pow(-1 / alpha), 1 + torch.cdist(a, b).square() / (2 * alpha), rtol=1e-8, atol=1e-10)


def test_rational_quadratic_tends_to_the_gaussian():
    a, b = scores(3, 2, 1), scores(4, 2, 2)
    assert_close(RationalQuadraticKernel(1e7)(a, b), RBFKernel(1.0)(a, b), rtol=1e-5, atol=0)


@given(sigma=positive, alpha=positive, weight=positive)
def test_mixture_of_one_is_its_part(sigma, alpha, weight):
    a, b = scores(3, 2, 1), scores(4, 2, 2)
    assert_close(RBFMix((sigma,))(a, b), RBFKernel(sigma)(a, b))
    assert_close(RationalQuadraticMix((alpha,))(a, b), RationalQuadraticKernel(alpha)(a, b))
    assert_close(RBFMix((sigma,), weights=(weight,))(a, b), (weight * RBFKernel(sigma))(a, b))


def test_mixtures_are_sums_with_weights():
    a, b = scores(3, 2, 1), scores(4, 2, 2)
    rbf, rq = RBFKernel(0.5) + RBFKernel(2.0) * 3, RationalQuadraticKernel(0.5) + RationalQuadraticKernel(2.0)
    assert_close(RBFMix((0.5, 2.0), weights=[1, 3])(a, b), rbf(a, b))
    assert_close(RationalQuadraticMix([0.5, 2.0])(a, b), rq(a, b))
    assert_close(RBFMix((1.0, 1.0))(a, a).diagonal(), torch.full((3,), 2.0, dtype=torch.float64))


def test_default_mixtures_are_the_papers():
    assert RBFMix().sigmas == pytest.approx((1, math.sqrt(2), 2, 2 * math.sqrt(2), 4))
    assert RationalQuadraticMix().alphas == (0.2, 0.5, 1, 2, 5)
    assert RBFMix().weights == RationalQuadraticMix().weights == (1.0,) * 5
    assert (RBFBKernel().sigma, RBFBKernel().lower, RBFBKernel().upper) == (1.0, 0.25, 4.0)
    assert RBFKernel().sigma == RationalQuadraticKernel().alpha == 1.0


def _reference(sq_dist, alpha, length):
    """Return values and slopes of a rational quadratic in float64, which loses no digits for any shape."""
    quotient = sq_dist.double() / (2 * alpha * length**2)
    values = torch.exp(-alpha * torch.log1p(quotient))
    return values, -0.5 / length**2 * values / (1 + quotient)


shapes = st.one_of(
    st.floats(-30, 30).map(lambda exponent: 10.0**exponent), st.floats(0.1, 20.0), st.sampled_from([0.5, 1, 2, 3, 4, 5])
)


def close_to_reference(found, expected, values):
    # An error of one rounding of an exponent `t` is `t` roundings of exp(t).
    allowed = 1e-6 * (1 - values.clamp_min(1e-30).log()) * expected.abs()
    assert ((found.double() - expected).abs() <= allowed + 1e-37).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(alpha=shapes, length=st.sampled_from([1.0, 0.03, 7.0]))
@example(alpha=1e3, length=1.0)
@example(alpha=1e6, length=1.0)
@example(alpha=1e30, length=7.0)
@example(alpha=1e-30, length=0.03)
def test_rational_quadratics_keep_their_digits_for_any_shape(dtype, alpha, length):
    sq_dist = torch.cat([torch.zeros(1), torch.logspace(-8, 2, 60)]).to(dtype) * length**2
    values, slopes = _reference(sq_dist, alpha, length)
    for kernel in (RationalQuadraticKernel(alpha, length), RationalQuadraticMix((alpha,), length=length)):
        points = sq_dist.clone().requires_grad_()
        found = kernel.from_sq_dist(points)
        (slope,) = torch.autograd.grad(found.sum(), points)
        by_hand = kernel._function().value_and_slope(sq_dist.clone())
        for value, derivative in ((found.detach(), slope), (by_hand.value, by_hand.slope * by_hand.rate)):
            assert value.dtype == dtype
            close_to_reference(value, values, values)
            close_to_reference(derivative, slopes, values)


@given(alpha=shapes)
def test_large_and_small_shapes_in_all_passes(alpha):
    real, fake = scores(7, 2, 1).float(), scores(6, 2, 2, shift=0.5).float()
    precise = (real.double(), fake.double())
    expected = _reference(torch.cdist(*precise).square(), alpha, 1.0)[0]
    for kernel in (RationalQuadraticKernel(alpha), RationalQuadraticMix((alpha,))):
        assert_close(kernel(real, fake).double(), expected, rtol=3e-6, atol=0)
        assert_close(mmd2(real, fake, kernel).double(), mmd2(*precise, kernel), rtol=0, atol=2e-6)
        assert_close(
            mmd2_fourier(*precise, kernel, frequencies=3000, generator=torch.Generator().manual_seed(0)),
            mmd2(*precise, kernel),
            rtol=0,
            atol=0.1,
        )
        if 1e-7 < alpha < 1e7:
            value = gradient_constrained_mmd2(real, fake, kernel)
            assert_close(value.double(), gradient_constrained_mmd2(*precise, kernel), rtol=1e-4, atol=1e-6)


@given(alpha=shapes, length=positive, factor=positive)
def test_lengths_have_the_units_of_the_scores(alpha, length, factor):
    a, b = scores(3, 2, 1), scores(4, 2, 2)
    for make in (
        lambda length: RationalQuadraticKernel(alpha, length),
        lambda length: RationalQuadraticMix((alpha, 1.5), weights=(2, 3), length=length),
    ):
        assert_close(make(factor * length)(factor * a, factor * b), make(length)(a, b), rtol=1e-9, atol=0)
        # The same distribution of the frequencies.
        (narrow,), (wide,) = make(length)._summands(), make(factor * length)._summands()
        for one, other in zip(spectral_measure.components(narrow), spectral_measure.components(wide), strict=True):
            assert (one.weight, one.alpha) == (other.weight, other.alpha)
            assert other.sigma == pytest.approx(factor * one.sigma)


@given(alpha=shapes)
def test_a_length_of_one_changes_no_bit(alpha):
    sq_dist = torch.linspace(0, 9, 50)
    for dtype in (torch.float32, torch.float64):
        x = sq_dist.to(dtype)
        kernel = RationalQuadraticKernel(alpha)
        if 2**-20 <= alpha <= 8:
            assert_close(kernel.from_sq_dist(x), (1 + x * (0.5 / alpha)) ** -alpha, rtol=0, atol=0)
        value, slope, rate = kernel._function().value_and_slope(x.clone())
        assert rate == -0.5 or alpha > 1e18
        if alpha in (1, 2, 3, 4, 5):
            inverse = torch.rsub(x, 1.0, alpha=-0.5 / alpha).reciprocal()
            assert_close(slope, inverse * value if alpha > 1 else inverse.square(), rtol=0, atol=0)


def test_the_inverse_multiquadric_of_autoencoders():
    a, b, c = scores(3, 4, 1), scores(5, 4, 2), 2 * 4 * 1.7
    expected = c / (c + torch.cdist(a, b).square())
    assert_close(RationalQuadraticKernel(1.0, length=(c / 2) ** 0.5)(a, b), expected)


def test_lengths_are_shown_and_saved():
    kernel = RationalQuadraticMix((1, 2), length=3)
    assert repr(kernel) == "RationalQuadraticMix(alphas=(1.0, 2.0), weights=(1.0, 1.0), length=3.0)"
    assert repr(RationalQuadraticKernel(2, 3)) == "RationalQuadraticKernel(alpha=2.0, length=3.0)"
    fresh = RationalQuadraticMix((1, 1))
    fresh.load_state_dict(kernel.state_dict())
    assert fresh.length == 3
    kernel.length = 4
    assert kernel.length == 4
    with pytest.raises(TypeError, match="takes from 1 to 2 positional arguments"):
        RationalQuadraticMix((1, 2), None, 3.0)


COINCIDENT = st.builds(
    lambda m, n, d, seed, distinct, scale: (
        scale * scores(distinct, d, seed)[torch.arange(m) % distinct],
        scale * scores(distinct, d, seed)[torch.arange(n) * 2 % distinct],
    ),
    m=st.integers(2, 40),
    n=st.integers(2, 40),
    d=st.integers(1, 9),
    seed=st.integers(0, 10**6),
    distinct=st.integers(1, 3),
    scale=st.sampled_from([1.0, 1e-25, 1e20]),
)


@pytest.mark.filterwarnings("ignore:MMDLoss. expected several scores:torch_mmd_losses.UsageWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("way", ["dense", "tiled", "autograd"])
@given(sets=COINCIDENT)
def test_coincident_scores_have_no_gradient_under_the_energy_kernel(way, dtype, sets):
    real, fake = (x.to(dtype) for x in sets)
    # The gradient by definition: the sum of unit vectors, of which those of coincident scores are zero.
    stack, m, n = torch.cat([real, fake]).double(), len(real), len(fake)
    weights = torch.full((m + n, m + n), -1 / (m * n), dtype=torch.float64)
    weights[:m, :m], weights[m:, m:] = 1 / (m * (m - 1)), 1 / (n * (n - 1))
    apart = stack.unsqueeze(1) - stack
    units = torch.nan_to_num(apart / apart.norm(dim=2, keepdim=True), nan=0.0)
    expected = -2 * (weights.fill_diagonal_(0).unsqueeze(2) * units).sum(1)
    with pytest.MonkeyPatch.context() as patch:
        if way == "tiled":
            patch.setattr(plan, "DENSE_UP_TO", 0)
        if way == "autograd":
            patch.setattr(hand_written_gradients, "reverse_mode_only", lambda *_: False)
        flat = EnergyKernel() + 1e-30 * RBFKernel(1e30)
        for kernel in (EnergyKernel(), flat):
            leaves = [real.clone().requires_grad_(), fake.clone().requires_grad_()]
            loss = MMDLoss(kernel, tile_size=7).generator(*leaves)
            found = torch.cat(torch.autograd.grad(loss, leaves)).double()
            assert_close(found, expected, rtol=0, atol=1e-6)
            if len(torch.unique(stack, dim=0)) == 1:  # the Gaussian beside it leaves a rounding
                assert not found.any() if kernel is not flat else (found.abs() < 1e-60).all()
