"""MMD^2 of scores that are close together for the kernel."""

import math

import numpy as np
import pytest
import torch
from cases import RADIAL, InverseMultiquadric, scores
from torch.testing import assert_close

from torch_mmd_losses import (
    EnergyKernel,
    InverseMultiquadricKernel,
    LaplaceKernel,
    MaternKernel,
    RationalQuadraticKernel,
    RationalQuadraticMix,
    RBFBKernel,
    RBFKernel,
    RBFMix,
    mmd2,
)
from torch_mmd_losses.groups.stacked_distances import Demands
from torch_mmd_losses.kernels.contract import Conditioning
from torch_mmd_losses.kernels.summands import values_and_slopes, worst_conditioning
from torch_mmd_losses.pairs import plan

OWN = {name: case.make() for name, case in RADIAL.items() if name not in ("own_radial", "product")} | {
    "laplace_floor": LaplaceKernel(1.7, floor=0.3),
    "matern_12": MaternKernel(0.5, 0.7),
    "matern_52": MaternKernel(2.5, 0.8),
    "inverse_multiquadric": 2 * InverseMultiquadricKernel(1.5, -0.7),
}
PEAKED = {
    "rbf": RBFKernel(300.0),
    "rbf_b": RBFBKernel(300.0),
    "rbf_mix": RBFMix((300.0, 900.0), weights=(2, 3)),
    "rational_quadratic": RationalQuadraticKernel(0.7, 300.0),
    "rational_quadratic_mix": RationalQuadraticMix((0.2, 2.0, 1e20), length=300.0),
    "laplace": LaplaceKernel(300.0),
    "laplace_floor": LaplaceKernel(300.0, floor=1.0),
    "matern_32": MaternKernel(1.5, 300.0),
    "matern_52": MaternKernel(2.5, 300.0),
    "inverse_multiquadric": InverseMultiquadricKernel(300.0, -0.6),
    "joint_gaussian": RBFKernel(300.0).on(slice(0, 2)) * RBFKernel(300.0).on(slice(2, None)),
    "sum": 0.5 * RBFKernel(300.0) + 2 * EnergyKernel(),
}


def conditioning_of(kernel):
    return worst_conditioning(kernel._summands(), torch.zeros(1, 2))


@pytest.mark.parametrize("kernel", OWN.values(), ids=OWN)
def test_values_in_float64_from_distances_in_float32(kernel):
    summands = kernel._summands()
    sq_dist = torch.cat([torch.zeros(1), torch.logspace(-6, 1, 40)])
    value, slope, rate = values_and_slopes(summands, sq_dist, None, dtype=torch.float32, keep=True, in_float64=True)
    exact, exact_slope, exact_rate = values_and_slopes(summands, sq_dist.double(), None, dtype=torch.float64, keep=True)
    assert value.dtype == torch.float64
    # As if the distances had the errors of float32: the digits of the differences from the peak are right.
    assert_close(value - value[0], exact - exact[0], rtol=2e-6, atol=1e-13)
    assert_close(slope.double() * rate, exact_slope * exact_rate, rtol=2e-6, atol=1e-30)


@pytest.mark.parametrize("kernel", OWN.values(), ids=OWN)
def test_values_of_wide_kernels_are_at_least_half_the_peak(kernel):
    conditioning, like = conditioning_of(kernel), torch.zeros(1, 1)
    if kernel(like, like) == 0:  # no digits are lost near a peak of zero
        assert not any(conditioning.is_wide(largest) for largest in (0.0, 1.0, math.inf))
        return
    bounds = [largest for largest in torch.logspace(-6, 6, 200).tolist() if conditioning.is_wide(largest)]
    assert bounds
    for summand in kernel._summands():
        peak, there = summand.profile.value(torch.tensor([0.0, 4 * max(bounds)], dtype=torch.float64)).tolist()
        assert 0.5 * peak <= there
    assert not conditioning.is_wide(math.inf)
    assert not conditioning_of(kernel + InverseMultiquadric()).is_wide(min(bounds))


def test_wide_kernels_for_groups_with_scales():
    scale, largest = torch.tensor([1.0, 10.0, 10.0]), np.array([1.0, 1.0, math.inf])
    for kernel, wide in ((RBFKernel(), [False, True, False]), (EnergyKernel(), [False] * 3)):
        demands = Demands.of(3, conditioning_of(kernel), scale)
        assert demands.are_wide(largest).tolist() == wide


def test_the_peak_of_one_kernel_needs_its_digits_in_a_sum_with_the_energy_distance():
    assert conditioning_of(RBFKernel(3.0) + EnergyKernel()) == Conditioning(
        math.inf, math.inf, half_peak=conditioning_of(RBFKernel(3.0)).half_peak
    )


@pytest.mark.parametrize("logarithm", [-1000.0, 1000.0, 500.0])
@pytest.mark.parametrize("kernel", [LaplaceKernel, MaternKernel], ids=repr)
def test_no_digits_are_needed_for_trained_parameters_of_any_size(kernel, logarithm):
    trained = kernel(trainable=True).double()
    (parameter,) = trained.parameters()
    with torch.no_grad():
        parameter.fill_(logarithm)
    assert conditioning_of(trained).half_peak == 0


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("estimator", ["unbiased", "biased", "u_statistic"])
@pytest.mark.parametrize("kernel", PEAKED.values(), ids=PEAKED)
def test_close_scores_keep_the_digits_of_mmd2_in_float32(kernel, estimator, dense, monkeypatch):
    if not dense:
        monkeypatch.setattr(plan, "DENSE_UP_TO", 0)
    real, fake = scores(40, 6, 1).float(), scores(40, 6, 2, shift=0.3).float()
    leaves = [real.requires_grad_(), fake.requires_grad_()]
    value = mmd2(*leaves, kernel, estimator=estimator)
    precise = [x.detach().double().requires_grad_() for x in leaves]
    expected = mmd2(*precise, kernel, estimator=estimator)
    # MMD^2 is some 1e-6 of the kernel values. With the values themselves, two digits would be right.
    assert value.item() == pytest.approx(expected.item(), rel=2e-5)
    found, gradients = torch.autograd.grad(value, leaves), torch.autograd.grad(expected, precise)
    for gradient, reference in zip(found, gradients, strict=True):
        assert (gradient - reference).norm() < 1e-5 * reference.norm()


def test_a_sum_with_a_kernel_without_a_known_peak_is_evaluated_as_it_is():
    kernel = LaplaceKernel(300.0) + InverseMultiquadric()
    real, fake = scores(6, 2, 1), scores(5, 2, 2, shift=0.3)
    assert_close(mmd2(real.float(), fake.float(), kernel).double(), mmd2(real, fake, kernel), rtol=0, atol=1e-6)
    assert not conditioning_of(kernel).is_wide(1.0)


def test_a_sum_is_wide_up_to_where_each_kernel_is():
    kernel = LaplaceKernel(300.0) + RBFKernel(30.0)
    # Half the peak of the Gaussian is at a squared distance of 2 log(2) 30^2, four times the largest squared norm.
    half = 2 * math.log(2) * 30**2 / 4
    assert conditioning_of(kernel).is_wide(0.99 * half)
    assert not conditioning_of(kernel).is_wide(1.01 * half)
    real, fake = scores(6, 2, 1), scores(5, 2, 2, shift=0.3)
    value = mmd2(real.float(), fake.float(), kernel).double()
    assert_close(value, mmd2(real, fake, kernel), rtol=1e-4, atol=0)
