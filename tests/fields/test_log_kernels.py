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
from torch_mmd_losses.fields.log_kernels import log_kernel
from torch_mmd_losses.fields.sharp_kernels import sharp_kernel

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
    summands = kernel._summands()
    values = sum(factor * profile.value(SQ_DIST) for factor, _, profile in summands)
    assert_close(log_kernel(summands, "rows", torch.float64)(SQ_DIST), values.log())


def test_logarithms_do_not_underflow():
    far = torch.tensor([1e4, 1e8], dtype=torch.float64)

    def log(kernel):
        return log_kernel(kernel._summands(), "rows", torch.float64)(far)

    assert_close(log(RBFKernel(0.02)), far / -8e-4)
    assert_close(log(LaplaceKernel(0.02)), far.sqrt() / -0.02)
    assert_close(log(LaplaceKernel(200.0, floor=150.0)), torch.tensor([-0.75, -50.0], dtype=torch.float64))
    assert_close(log(RBFKernel(0.02) * LaplaceKernel(0.02)), far / -8e-4 + far.sqrt() / -0.02)
    u = 3**0.5 * far.sqrt() / 0.02
    assert_close(log(MaternKernel(1.5, 0.02)), torch.log1p(u) - u)


@pytest.mark.parametrize("name", SHARP)
def test_the_gradient_of_a_sharp_kernel_is_the_kernel_times_the_difference(name):
    kernel, sq_dist = SHARP[name](), SQ_DIST.clone().requires_grad_()
    summands = kernel._summands()
    sharp = sharp_kernel(summands).log(sq_dist).exp()
    (slope,) = torch.autograd.grad(sharp.sum(), sq_dist)
    values = sum(factor * part.from_sq_dist(SQ_DIST) for factor, part, _ in summands)
    assert_close(-2 * slope[1:], values[1:], rtol=1e-6, atol=0)  # the differences of logarithms at 1e-4 cost digits
    assert float(sharp_kernel(summands).log(torch.tensor(1e12, dtype=torch.float64))) < math.log(1e-5)


@pytest.mark.parametrize("name", SHARP)
def test_values_and_slopes_of_sharp_kernels_are_multiples_of_both_kernels(name):
    summands = SHARP[name]()._summands()
    sharp = sharp_kernel(summands)
    value, slope, rate = sharp.with_slope(SQ_DIST.clone())
    values = sum(factor * profile.value(SQ_DIST) for factor, _, profile in summands)
    exact = sharp.log(SQ_DIST).exp()
    assert_close(value / value[0], exact / exact[0])
    assert_close((-2 * rate * slope / value)[1:], (values / exact)[1:])


def test_sharp_kernels_of_neighbouring_orders_of_matern():
    summands = LaplaceKernel(0.7)._summands()
    expected = 0.49 * MaternKernel(1.5, 0.7 * 3**0.5).from_sq_dist(SQ_DIST)
    assert_close(sharp_kernel(summands).log(SQ_DIST).exp(), expected)
    summands = MaternKernel(1.5, 0.7)._summands()
    expected = 0.49 * MaternKernel(2.5, 0.7 * (5 / 3) ** 0.5).from_sq_dist(SQ_DIST)
    assert_close(sharp_kernel(summands).log(SQ_DIST).exp(), expected)
