"""Sums and multiples of kernels as people write them."""

import functools
import math
import operator
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from cases import CASES, KernelCase, scores
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from torch_mmd_losses import EnergyKernel, Kernel, LinearKernel, MMDLoss, RBFKernel, RBFMix, mmd2

cases = st.sampled_from(list(CASES.values()))
factors = st.floats(1e-6, 1e6)
A, B = scores(4, 3, 1), scores(5, 3, 2)


@given(st.lists(cases, min_size=1, max_size=4))
def test_sum_adds_up_kernels(several: list[KernelCase]):
    kernels = [case.make() for case in several]
    expected = functools.reduce(torch.add, [kernel(A, B) for kernel in kernels])
    for total in (sum(kernels), sum(kernels[1:], start=kernels[0]), functools.reduce(operator.add, kernels)):
        assert_close(total(A, B), expected)
    assert sum(kernels[:1]) is kernels[0]


@given(case=cases, factor=factors)
def test_multiples_and_quotients(case: KernelCase, factor):
    kernel = case.make()
    expected = kernel(A, B)
    for multiple in (factor * kernel, kernel * factor, kernel / (1 / factor), Fraction(factor) * kernel):
        assert_close(multiple(A, B), factor * expected)
    assert_close((kernel / 2)(A, B), expected / 2)
    assert_close((3 * kernel / 3)(A, B), expected)


def test_assignments_make_new_kernels():
    kernel, other = RBFKernel(), LinearKernel()
    total = scaled = kernel
    total += other
    scaled *= 2
    assert_close(total(A, B), kernel(A, B) + other(A, B))
    assert_close(scaled(A, B), 2 * kernel(A, B))
    assert repr(kernel) == "RBFKernel(sigma=1.0)"
    scaled /= 4
    assert_close(scaled(A, B), kernel(A, B) / 2)


def test_sums_do_not_nest():
    one, two, three = RBFKernel(1), RBFKernel(2), RBFKernel(3)
    assert repr((one + two) + three) == repr(one + (two + three)) == repr(sum([one, two, three]))
    state = ((one + two) + three).state_dict()
    fresh = RBFKernel() + (RBFKernel() + RBFKernel())
    fresh.load_state_dict(state)
    assert [part.sigma for part in fresh.parts] == [1, 2, 3]
    both = one + two
    assert len((both + both).parts) == 4
    assert_close((both + both)(A, B), 2 * both(A, B))
    many = sum(RBFKernel(1 + i) for i in range(400))
    assert mmd2(A, B, many) != 0


def test_numbers_of_numpy_are_numbers():
    assert_close((np.float64(2) * RBFKernel())(A, B), 2 * RBFKernel()(A, B))
    assert_close((RBFKernel() * np.float32(2))(A, B), 2 * RBFKernel()(A, B))
    assert_close((RBFKernel() / np.int64(2))(A, B), RBFKernel()(A, B) / 2)
    with pytest.raises(TypeError, match="factor: expected a real number, got array"):
        np.array([1.0, 2.0]) * RBFKernel()


def test_a_part_that_is_replaced_by_something_else_is_not_dropped():
    total = RBFKernel() + LinearKernel()
    total.parts[1] = nn.Identity()
    with pytest.raises(TypeError, match=r"parts: expected kernels, got Identity\(\) of type Identity"):
        mmd2(A, B, total)


K = RBFKernel(2.0)
NUMBER = "factor: expected a"
ADDED = "kernel \\+ other: expected a Kernel to add, or the 0 that sum\\(\\) starts from, got"
REFUSED = {
    "k * -1": (lambda: K * -1, ValueError, "factor: expected a number > 0, got -1"),
    "-1 * k": (lambda: -1 * K, ValueError, "factor: expected a number > 0, got -1"),
    "k * 0": (lambda: K * 0, ValueError, "factor: expected a number > 0, got 0"),
    "k * nan": (lambda: K * math.nan, ValueError, "factor: expected a finite number, got nan"),
    "k * inf": (lambda: K * math.inf, ValueError, "factor: expected a finite number, got inf"),
    "k * 1e31": (lambda: K * 1e31, ValueError, "factor: expected a number between 1e-30 and 1e\\+30, got 1e\\+31"),
    "k * 10**400": (lambda: K * 10**400, ValueError, "factor: expected a finite number, got 1000"),
    "k * tensor": (lambda: K * torch.tensor(2.0), TypeError, "factor: expected a real number, got a tensor of shape"),
    "tensor * k": (lambda: torch.tensor(2.0) * K, TypeError, "factor: expected a real number, got a tensor of shape"),
    "k * True": (lambda: K * True, TypeError, "factor: expected a real number, got True of type bool"),
    "k * '2'": (lambda: K * "2", TypeError, "factor: expected a real number, got '2' of type str"),
    "k * None": (lambda: K * None, TypeError, "factor: expected a real number, got None"),
    "k * Decimal": (lambda: K * Decimal(2), TypeError, "factor: expected a real number, got Decimal"),
    "k * energy": (
        lambda: K * (RBFKernel() + EnergyKernel()),
        TypeError,
        "kernel, other: expected positive definite kernels, .*, got a kernel that contains EnergyKernel",
    ),
    "1e20 * (1e20 * k)": (lambda: 1e20 * (1e20 * K), ValueError, "factor, times the factors within .* got 1e\\+40"),
    "1e20 k * 1e20 k": (
        lambda: (1e20 * K) * (1e20 * RBFMix()),
        ValueError,
        "factor, times the factors within .* got 1e\\+40",
    ),
    "1e20 k * 1e20 k.on": (
        lambda: (1e20 * K) * (1e20 * K).on(slice(0, 1)),
        ValueError,
        "factor, times the factors within .* got 1e\\+40",
    ),
    "k + 1": (lambda: K + 1, TypeError, ADDED + " 1 of type int"),
    "1 + k": (lambda: 1 + K, TypeError, ADDED + " 1 of type int"),
    "0.5 + k": (lambda: 0.5 + K, TypeError, ADDED + " 0.5 of type float"),
    "k + False": (lambda: K + False, TypeError, ADDED + " False of type bool"),
    "k + None": (lambda: K + None, TypeError, ADDED + " None of type NoneType"),
    "k + tensor": (lambda: K + torch.zeros(2), TypeError, ADDED + " a tensor of shape \\(2,\\)"),
    "k + 10**5000": (lambda: K + 10**5000, TypeError, ADDED + " a number of type int that is too long"),
    "sum of lists": (lambda: sum([K, 1]), TypeError, ADDED + " 1 of type int"),
    "2 / k": (lambda: 2 / K, TypeError, "other / kernel: expected a kernel / number, got 2 of type int / RBFKernel"),
    "k / k": (lambda: K / RBFMix(), TypeError, "divisor: expected a real number, got RBFMix"),
    "k / 0": (lambda: K / 0, ValueError, "divisor: expected a number > 0, got 0"),
    "k / nan": (lambda: K / math.nan, ValueError, "divisor: expected a finite number, got nan"),
    "k / tensor": (lambda: K / torch.tensor(2.0), TypeError, "divisor: expected a real number, got a tensor"),
    "-k": (lambda: -K, TypeError, "-kernel: expected a kernel times a factor > 0, got minus RBFKernel"),
    "k - k": (lambda: K - RBFMix(), TypeError, "kernel - other: expected a sum .*, got a difference with RBFMix"),
    "1 - k": (lambda: 1 - K, TypeError, "kernel - other: expected a sum .*, got a difference with 1 of type int"),
    "k ** 2": (lambda: K**2, TypeError, "unsupported operand"),
    "sum([])": (
        lambda: MMDLoss(sum([])),
        TypeError,
        "kernel: expected a Kernel such as RBFKernel\\(sigma=1.0\\), got 0",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_kernel_is_refused(name):
    make, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        make()


def test_a_factor_that_is_assigned_within_a_multiple_is_checked_when_it_is_used():
    kernel: Kernel = 1e20 * (1e-10 * RBFKernel())
    kernel.part.factor = 1e20
    with pytest.raises(ValueError, match="factor, times the factors within the kernel: .* got 1e\\+40"):
        mmd2(A, B, kernel)
