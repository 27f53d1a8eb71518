"""Laplace, Matern and inverse multiquadric kernels: closed forms, relations, coincident scores, public numbers."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import scores
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from torch_mmd_losses import (
    InverseMultiquadricKernel,
    LaplaceKernel,
    MaternKernel,
    RationalQuadraticKernel,
    ScaledMMDLoss,
    mmd2,
    mmd2_fourier,
)
from torch_mmd_losses.pairs import plan

NUMBERS = {
    case["id"]: case
    for case in json.loads((Path(__file__).parents[1] / "data" / "modern-mmd.json").read_text(encoding="utf-8"))[
        "cases"
    ]
}
A, B = scores(5, 3, 1), scores(4, 3, 2)
positive = st.floats(0.05, 20.0)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5])
@given(length=positive)
def test_matern_kernels_are_those_of_scikit_learn(nu, length):
    gaussian_process = pytest.importorskip("sklearn.gaussian_process.kernels")
    expected = gaussian_process.Matern(length, nu=nu)(A.numpy(), B.numpy())
    assert_close(MaternKernel(nu, length)(A, B), torch.from_numpy(expected))


@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5])
def test_matern_kernels_are_the_bessel_functions_of_their_definition(nu):
    special = pytest.importorskip("scipy.special")
    u = math.sqrt(2 * nu) * torch.cdist(A, B).numpy() / 1.7
    expected = 2 ** (1 - nu) / math.gamma(nu) * u**nu * special.kv(nu, u)
    assert_close(MaternKernel(nu, 1.7)(A, B), torch.from_numpy(expected))


@given(scale=positive)
def test_order_one_half_is_the_laplace_kernel(scale):
    assert_close(MaternKernel(0.5, scale)(A, B), LaplaceKernel(scale)(A, B), rtol=0, atol=0)
    assert_close(mmd2(A, B, MaternKernel(0.5, scale)), mmd2(A, B, LaplaceKernel(scale)), rtol=0, atol=0)


@given(tau=positive)
def test_the_gradient_of_order_three_halves_is_the_drift_of_the_laplace_kernel(tau):
    # Section 3.4 of modern-mmd.md: tau^2 (1 + r / tau) exp(-r / tau) has the gradient k(x, y) (y - x) for Laplace k.
    x = A.clone().requires_grad_()
    sharp = tau**2 * MaternKernel(1.5, math.sqrt(3) * tau)(x, B)
    (gradient,) = torch.autograd.grad(sharp.sum(), x)
    drift = (LaplaceKernel(tau)(A, B).unsqueeze(2) * (B - A.unsqueeze(1))).sum(1)
    assert_close(gradient, drift)


@given(c=positive, beta=positive)
def test_inverse_multiquadrics_are_rational_quadratics(c, beta):
    kernel = InverseMultiquadricKernel(c, -beta)
    assert_close(kernel(A, B), (1 + torch.cdist(A, B).square() / c**2) ** -beta)
    assert_close(kernel(A, B), RationalQuadraticKernel(beta, c / math.sqrt(2 * beta))(A, B))
    of_autoencoders = c / (c + torch.cdist(A, B).square())
    assert_close(InverseMultiquadricKernel(c**0.5, -1)(A, B), of_autoencoders)


@given(
    seed=st.integers(0, 10**6),
    d=st.integers(1, 5),
    make=st.sampled_from([LaplaceKernel, lambda s: MaternKernel(1.5, s), lambda s: MaternKernel(2.5, s)]),
    scale=positive,
)
def test_gram_matrices_are_positive_definite(seed, d, make, scale):
    points = scores(12, d, seed)
    assert torch.linalg.eigvalsh(make(scale)(points, points))[0] > -1e-12


@pytest.mark.parametrize("kernel", [LaplaceKernel(0.8), MaternKernel(1.5, 0.8), MaternKernel(2.5, 1.1)], ids=repr)
def test_the_mean_over_gaussians_is_that_of_quadrature(kernel):
    # The distance of two normal scores of dimension 2 has a Rayleigh distribution with a scale of sqrt(2).
    r = torch.linspace(0, 20, 20_001, dtype=torch.float64)
    density = r / 2 * torch.exp(-r.square() / 4)
    expected = torch.trapezoid(kernel.from_sq_dist(r.square()) * density, r)
    found = kernel(scores(2000, 2, 1), scores(2000, 2, 2))
    assert abs(found.mean() - expected) < 4 * found.mean(1).std() / math.sqrt(1000)


def test_floors_are_the_distance_of_close_scores():
    kernel, x = LaplaceKernel(2.0, floor=1.5), torch.tensor([[0.0], [1.0], [1.5], [4.0]], dtype=torch.float64)
    x.requires_grad_()
    expected = tensor([math.exp(-0.75)] * 3 + [math.exp(-2.0)])
    gram = kernel(x, torch.zeros(1, 1).double())
    assert_close(gram.squeeze(1), expected)
    (gradient,) = torch.autograd.grad(gram.sum(), x)
    # A distance that equals the floor keeps its gradient.
    assert_close(gradient.squeeze(1), tensor([0, 0, -math.exp(-0.75) / 2, -math.exp(-2.0) / 2]))
    value, slope, rate = kernel._function().value_and_slope(x.detach().square())
    assert_close(value.squeeze(1), expected)
    assert_close((rate * slope).squeeze(1), tensor([0, 0, -math.exp(-0.75) / 6, -math.exp(-2.0) / 16]))


ROUGH = [LaplaceKernel(1.3), LaplaceKernel(1.3, floor=1e-8), MaternKernel(0.5, 1.3)]
SMOOTH = [MaternKernel(1.5, 1.3), MaternKernel(2.5, 1.3)]


@pytest.mark.parametrize("way", ["dense", "tiled", "autograd"])
@pytest.mark.parametrize("kernel", [*ROUGH, *SMOOTH], ids=repr)
def test_pairs_of_coincident_scores_have_no_gradient(kernel, way, monkeypatch):
    if way == "tiled":
        monkeypatch.setattr(plan, "DENSE_UP_TO", 0)
    real, fake = scores(3, 2, 1).repeat(2, 1), torch.cat([scores(3, 2, 1), scores(2, 2, 2)])
    apart = torch.cat([real, fake]).unsqueeze(1) - torch.cat([real, fake])
    distance = apart.norm(dim=2)
    slopes = torch.zeros_like(distance)
    for i, j in (distance > 1e-9).nonzero().tolist():
        r = distance[i, j].clone().requires_grad_()
        slopes[i, j] = torch.autograd.grad(kernel.from_sq_dist(r.square()), r)[0] / r.detach()
    weights = torch.full((11, 11), -1 / 30, dtype=torch.float64)
    weights[:6, :6], weights[6:, 6:] = 1 / 36, 1 / 25
    expected = 2 * (weights.unsqueeze(2) * slopes.unsqueeze(2) * apart).sum(1)
    if way == "autograd":
        gradient = torch.func.grad(lambda stack: mmd2(stack[:6], stack[6:], kernel, estimator="biased"))
        found = gradient(torch.cat([real, fake]))
    else:
        leaves = [real.requires_grad_(), fake.requires_grad_()]
        found = torch.cat(torch.autograd.grad(mmd2(*leaves, kernel, estimator="biased"), leaves))
    assert_close(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kernel", SMOOTH, ids=repr)
def test_second_derivatives_at_coincident_scores_are_those_of_the_limit(kernel):
    def second(shift):
        return torch.func.jacrev(torch.func.grad(lambda x: kernel(x.unsqueeze(0), torch.zeros(1, 2).double()).sum()))(
            torch.tensor([shift, 0.0], dtype=torch.float64)
        )

    assert_close(second(0.0), second(1e-7), rtol=1e-5, atol=1e-6)
    assert second(0.0)[0, 0] < -0.5
    # The curvature of Matern kernels at zero is nu / (nu - 1) / length^2.
    assert_close(second(0.0)[0, 0], tensor(-kernel.nu / (kernel.nu - 1) / kernel.length**2))


@pytest.mark.parametrize("kernel", ROUGH, ids=repr)
def test_kernels_with_a_cusp_are_refused_where_second_derivatives_are_needed(kernel):
    with pytest.raises(TypeError, match=rf"smooth at distance zero, .* got {type(kernel).__name__}"):
        ScaledMMDLoss(kernel)


def test_smooth_matern_kernels_have_a_scale():
    for kernel in SMOOTH:
        real, fake = scores(6, 1, 1).requires_grad_(), scores(5, 1, 2)
        loss = ScaledMMDLoss(kernel, lambda_=0.5, scale="exact")
        value = loss.generator(real * 2.0, fake, real)
        curvature = kernel.nu / (kernel.nu - 1) / kernel.length**2
        assert_close(value, mmd2(real * 2.0, fake, kernel) / (0.5 + 1 + 4 * curvature))


def test_a_laplace_kernel_with_a_floor_has_no_frequencies():
    with pytest.raises(TypeError, match="got LaplaceKernel, whose spectral measure is unknown"):
        mmd2_fourier(A, B, LaplaceKernel(1.0, floor=0.1), frequencies=3)


def test_hyper_parameters_are_shown_saved_and_checked():
    assert repr(LaplaceKernel(2, floor=1)) == "LaplaceKernel(scale=2.0, floor=1.0)"
    assert repr(MaternKernel(length=3)) == "MaternKernel(nu=1.5, length=3.0)"
    assert repr(InverseMultiquadricKernel(2)) == "InverseMultiquadricKernel(c=2.0, beta=-0.5)"
    for kernel, fresh in (
        (LaplaceKernel(2, floor=1), LaplaceKernel()),
        (MaternKernel(2.5, 2), MaternKernel()),
        (InverseMultiquadricKernel(2, -3), InverseMultiquadricKernel()),
    ):
        fresh.load_state_dict(kernel.state_dict())
        assert repr(fresh) == repr(kernel)
    laplace, matern = LaplaceKernel(2, floor=1), MaternKernel()
    laplace.floor = 0
    assert laplace.floor == 0
    matern.nu = 2.5
    assert_close(matern(A, B), MaternKernel(2.5)(A, B))
    with pytest.raises(ValueError, match=r"scale, floor: expected floor <= scale, got 0.5 and 1.0"):
        LaplaceKernel(2, floor=1).scale = 0.5
    with pytest.raises(ValueError, match="beta: expected a number between -1e\\+30 and -1e-30, got 0.5"):
        InverseMultiquadricKernel().beta = 0.5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_loss_of_inductive_moment_matching(dtype):
    case = NUMBERS["imm_group_loss"]
    own, other = (torch.tensor(case["inputs"][name], dtype=dtype) for name in ("f_st", "f_sr"))
    pulls = []
    for a, b, c, weight, expected in zip(
        own, other, case["outputs"]["c_out"], case["outputs"]["weight"], case["outputs"]["per_group"], strict=True
    ):
        a = a.clone().requires_grad_()
        value = weight * mmd2(a, b, LaplaceKernel(a.shape[1] * c, floor=1e-8), estimator="biased")
        # The code floors squared distances in another place, which is 3e-8 of the value.
        assert value.item() == pytest.approx(expected, rel=1e-7 if dtype == torch.float64 else 1e-5)
        pulls.append(torch.autograd.grad(value, a)[0] / len(own))
    expected = torch.tensor(case["outputs"]["grad_f_st"], dtype=dtype)
    assert_close(torch.stack(pulls), expected, rtol=1e-6 if dtype == torch.float64 else 1e-4, atol=1e-7)


def test_the_laplacian_of_geomloss():
    case = NUMBERS["geomloss_batched"]
    x, y = (tensor(case["inputs"][name]) for name in ("x", "y"))
    kernel = LaplaceKernel(case["settings"]["blur"], floor=1e-4 * case["settings"]["blur"])
    found = [mmd2(a, b, kernel, estimator="biased").item() / 2 for a, b in zip(x, y, strict=True)]
    assert found == pytest.approx(case["outputs"]["laplacian"], rel=1e-9)


def test_close_groups_of_high_dimension_keep_their_digits_in_float32():
    # Inductive moment matching at the size of images: groups of 4 with D = 3072, the exponent is a distance over D.
    torch.manual_seed(0)
    own = torch.randn(4, 3072)
    other = own + 1e-3 * torch.randn(4, 3072)
    for kernel in (LaplaceKernel(3072.0), LaplaceKernel(3072.0, floor=1e-8), MaternKernel(1.5, 3072.0)):
        expected = mmd2(own.double(), other.double(), kernel, estimator="biased").item()
        found = mmd2(own, other, kernel, estimator="biased").item()
        assert found == pytest.approx(expected, rel=3e-5)


def test_nothing_is_left_at_infinity():
    far = torch.tensor([[np.inf], [1e30]], dtype=torch.float32)
    for kernel in (*ROUGH, *SMOOTH):
        value, slope, _ = kernel._function().value_and_slope(far.clone())
        assert not value.any()
        assert not slope.any()
        assert not kernel.from_sq_dist(far).any()
