"""Kernel values minus their peak, and MMD^2 of scores that are close together for the kernel."""

import math

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
from torch_mmd_losses.kernels.summands import are_near, values_and_slopes, worst_conditioning
from torch_mmd_losses.pairs import plan
from torch_mmd_losses.pairs.tiles import Block

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


@pytest.mark.parametrize("kernel", OWN.values(), ids=OWN)
def test_the_excess_is_the_value_minus_the_peak(kernel):
    summands = kernel._summands()
    sq_dist = torch.cat([torch.zeros(1), torch.logspace(-6, 3, 40)]).double()
    value, slope, rate = values_and_slopes(summands, sq_dist.clone(), None, dtype=torch.float64, keep=True)
    excess, again, factor = values_and_slopes(
        summands, sq_dist.clone(), None, dtype=torch.float64, keep=True, excess=True
    )
    assert_close(excess, value - value[0], rtol=1e-9, atol=1e-13)
    # Far away, the slope is as precise as the excess.
    assert_close(again * factor, slope * rate, rtol=1e-9, atol=1e-13 * abs(rate))


@pytest.mark.parametrize("kernel", OWN.values(), ids=OWN)
def test_near_scores_are_at_least_at_half_the_peak(kernel):
    summands, like = kernel._summands(), torch.zeros(1, 1)
    conditioning = worst_conditioning(summands, like)
    if all(kernel(like, like) == 0 for kernel in (summand.kernel for summand in summands)):
        assert are_near(summands, conditioning, 1e30, like)  # the value is the excess
        return
    bounds = [
        largest for largest in torch.logspace(-6, 6, 200).tolist() if are_near(summands, conditioning, largest, like)
    ]
    assert bounds
    for summand in summands:
        peak, there = summand.profile.value(torch.tensor([0.0, 4 * max(bounds)], dtype=torch.float64)).tolist()
        assert 0.5 * peak <= there
    assert not are_near(summands, conditioning, math.inf, like)
    assert not are_near([*summands, *InverseMultiquadric()._summands()], conditioning, min(bounds), like)


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


@pytest.mark.parametrize("shift", [-9, -3, 0, 2, 4, 9])
@pytest.mark.parametrize("distinct", [True, False])
def test_the_number_of_pairs_of_a_block(shift, distinct):
    block = Block(torch.zeros(4, 1), torch.zeros(6, 1), shift, distinct=distinct, same=True, symmetric=False)
    left_out = sum(1 for i in range(4) for j in range(6) if j == i + shift) if distinct else 0
    assert block.pairs() == 24 - left_out


def test_a_sum_with_a_kernel_without_an_excess_is_evaluated_as_it_is():
    kernel = LaplaceKernel(300.0) + InverseMultiquadric()
    real, fake = scores(6, 2, 1), scores(5, 2, 2, shift=0.3)
    assert_close(mmd2(real.float(), fake.float(), kernel).double(), mmd2(real, fake, kernel), rtol=0, atol=1e-6)
    assert not are_near(kernel._summands(), worst_conditioning(kernel._summands(), real.float()), 1.0, real.float())


def test_a_sum_is_near_up_to_where_each_kernel_is():
    kernel = LaplaceKernel(300.0) + RBFKernel(30.0)
    summands, like = kernel._summands(), torch.zeros(1, 2)
    conditioning = worst_conditioning(summands, like)
    # Half the peak of the Gaussian is at a squared distance of 2 log(2) 30^2, four times the largest squared norm.
    half = 2 * math.log(2) * 30**2 / 4
    assert are_near(summands, conditioning, 0.99 * half, like)
    assert not are_near(summands, conditioning, 1.01 * half, like)
    real, fake = scores(6, 2, 1), scores(5, 2, 2, shift=0.3)
    value = mmd2(real.float(), fake.float(), kernel).double()
    assert_close(value, mmd2(real, fake, kernel), rtol=1e-4, atol=0)
