"""Gaussians, rational quadratics and the energy kernel."""

import math

import pytest
import torch
from cases import scores
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from torch_mmd_losses import (
    EnergyKernel,
    RationalQuadraticKernel,
    RationalQuadraticMix,
    RBFBKernel,
    RBFKernel,
    RBFMix,
)

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
