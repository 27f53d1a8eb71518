"""Logarithms of kernels, and of their sharp kernels."""

import math

import pytest
import torch
from cases import CASES, RADIAL
from torch.testing import assert_close

from torch_mmd_losses import (
    InverseMultiquadricKernel,
    LaplaceKernel,
    MaternKernel,
    RationalQuadraticKernel,
    RationalQuadraticMix,
    RBFBKernel,
    RBFKernel,
    RBFMix,
)
from torch_mmd_losses.fields.log_kernels import log_kernel, log_sharp_kernel, radial_summands

SHARP = {
    "rbf": lambda: RBFKernel(1.3),
    "rbf_b": lambda: RBFBKernel(0.7),
    "rbf_mix": lambda: RBFMix((0.5, 2.0), weights=(0.3, 2.0)),
    "rational_quadratic": lambda: RationalQuadraticKernel(1.7, length=0.6),
    "rational_quadratic_mix": lambda: RationalQuadraticMix((1.5, 4.0), weights=(0.5, 2.0), length=1.4),
    "inverse_multiquadric": lambda: InverseMultiquadricKernel(c=1.4, beta=-2.5),
    "laplace": lambda: LaplaceKernel(0.7),
    "matern_12": lambda: MaternKernel(0.5, 0.7),
    "matern_32": lambda: MaternKernel(1.5, 0.7),
    "matern_52": lambda: MaternKernel(2.5, 0.7),
    "sum": lambda: 0.5 * LaplaceKernel(2.0) + 3 * RBFKernel(0.4),
}
SQ_DIST = torch.tensor([0.0, 1e-4, 0.1, 1.0, 7.0, 40.0], dtype=torch.float64)


@pytest.mark.parametrize("name", [name for name, case in RADIAL.items() if case.peak != 0] + list(SHARP))
def test_logarithms_are_those_of_values(name):
    kernel = (SHARP.get(name) or CASES[name].make)()
    summands = radial_summands(kernel)
    values = sum(factor * profile.value(SQ_DIST) for factor, _, profile in summands)
    assert_close(log_kernel(summands, "rows", torch.float64)(SQ_DIST), values.log())


def test_logarithms_do_not_underflow():
    far = torch.tensor([1e4, 1e8], dtype=torch.float64)

    def log(kernel):
        return log_kernel(radial_summands(kernel), "rows", torch.float64)(far)

    assert_close(log(RBFKernel(0.02)), far / -8e-4)
    assert_close(log(LaplaceKernel(0.02)), far.sqrt() / -0.02)
    assert_close(log(LaplaceKernel(200.0, floor=150.0)), torch.tensor([-0.75, -50.0], dtype=torch.float64))
    assert_close(log(RBFKernel(0.02) * LaplaceKernel(0.02)), far / -8e-4 + far.sqrt() / -0.02)
    u = 3**0.5 * far.sqrt() / 0.02
    assert_close(log(MaternKernel(1.5, 0.02)), torch.log1p(u) - u)


@pytest.mark.parametrize("name", SHARP)
def test_the_gradient_of_a_sharp_kernel_is_the_kernel_times_the_difference(name):
    kernel, sq_dist = SHARP[name](), SQ_DIST.clone().requires_grad_()
    summands = radial_summands(kernel)
    sharp = log_sharp_kernel(summands)(sq_dist).exp()
    (slope,) = torch.autograd.grad(sharp.sum(), sq_dist)
    values = sum(factor * part.from_sq_dist(SQ_DIST) for factor, part, _ in summands)
    assert_close(-2 * slope[1:], values[1:], rtol=1e-6, atol=0)  # the differences of logarithms at 1e-4 cost digits
    assert float(log_sharp_kernel(summands)(torch.tensor(1e12, dtype=torch.float64))) < math.log(1e-5)


def test_sharp_kernels_of_neighbouring_orders_of_matern():
    summands = radial_summands(LaplaceKernel(0.7))
    expected = 0.49 * MaternKernel(1.5, 0.7 * 3**0.5).from_sq_dist(SQ_DIST)
    assert_close(log_sharp_kernel(summands)(SQ_DIST).exp(), expected)
    summands = radial_summands(MaternKernel(1.5, 0.7))
    expected = 0.49 * MaternKernel(2.5, 0.7 * (5 / 3) ** 0.5).from_sq_dist(SQ_DIST)
    assert_close(log_sharp_kernel(summands)(SQ_DIST).exp(), expected)
