"""The Laplace kernel of the 1-norm: values, derivatives of both orders, memory."""

import math

import pytest
import torch
from cases import scores
from hypothesis import given
from hypothesis import strategies as st
from sizes import Largest
from torch.testing import assert_close

from torch_mmd_losses import (
    L1LaplaceKernel,
    LaplaceKernel,
    gradient_constrained_mmd2,
    grouped_mmd2,
    mmd2,
    mmd2_fourier,
)
from torch_mmd_losses.kernels.l1_laplace import l1_distances
from torch_mmd_losses.pairs import plan

A, B = scores(5, 3, 1), scores(4, 3, 2)


def dense(a, b, scale):
    return torch.exp(-(a.unsqueeze(1) - b).abs().sum(2) / scale)


def test_it_is_the_product_over_coordinates():
    kernel = L1LaplaceKernel(1.7)
    expected = math.prod(LaplaceKernel(1.7)(p, q) for p, q in zip(A.T, B.T, strict=True))
    assert_close(kernel(A, B), expected)
    of_columns = [LaplaceKernel(1.7).on(slice(i, i + 1)) for i in range(3)]
    assert_close((of_columns[0] * of_columns[1] * of_columns[2])(A, B), expected)
    assert_close(kernel(A[:, :1], B[:, :1]), LaplaceKernel(1.7)(A[:, :1], B[:, :1]))


@pytest.mark.parametrize("large", [True, False])
@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 10))
def test_first_and_second_derivatives_are_those_of_autograd(large, seed, scale):
    # Rounded scores have equal coordinates, and coincident samples.
    leaves = [(2 * scores(6, 2, seed)).round().div(2).requires_grad_(), scores(5, 2, seed + 1).round().requires_grad_()]

    def by_autograd(x, y):
        return dense(x, x, scale).mean() - 2 * dense(x, y, scale).mean() + dense(y, y, scale).mean()

    found = []
    with pytest.MonkeyPatch.context() as patch:
        if large:
            patch.setattr(plan, "DENSE_UP_TO", 0)
        for value in (mmd2(*leaves, L1LaplaceKernel(scale), estimator="biased"), by_autograd(*leaves)):
            gradients = torch.autograd.grad(value, leaves, create_graph=True)
            size = sum((gradient * (1 + i + gradient)).sum() for i, gradient in enumerate(gradients))
            found.append((value.detach(), *gradients, *torch.autograd.grad(size, leaves)))
    assert_close(found[0], found[1])


def test_distances_can_be_differentiated_again_and_again():
    a, b = A.clone().requires_grad_(), B.clone().requires_grad_()

    def power(p, q):
        return l1_distances(p, q) ** 3

    assert torch.autograd.gradcheck(power, (a, b))
    assert torch.autograd.gradgradcheck(power, (a, b))
    (first,) = torch.autograd.grad(power(a, b).sum(), a, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), a, create_graph=True)
    (third,) = torch.autograd.grad(second.sum(), a)
    signs = (A.unsqueeze(1) - B).sign()
    assert_close(third, (6 * signs * signs.sum(2, keepdim=True) ** 2).sum(1))


@pytest.mark.parametrize("n", [20, 300])
@pytest.mark.parametrize("scale", [30.0, 1e3, 1e6])
def test_float32_keeps_its_digits_where_all_values_are_near_one(scale, n):
    real, fake = scores(n, 8, 1).float(), scores(n, 8, 2, shift=0.3).float()
    for kernel in (L1LaplaceKernel(scale), L1LaplaceKernel(scale) + 0.5 * L1LaplaceKernel(2 * scale)):
        expected = mmd2(real.double(), fake.double(), kernel)
        assert_close(mmd2(real, fake, kernel).double(), expected, rtol=1e-6, atol=0)
        found = grouped_mmd2(real[None], fake[None], kernel, estimator="unbiased")
        assert_close(found[0].double(), expected, rtol=1e-6, atol=0)
    assert kernel(real, fake).dtype == torch.float32


def test_memory_does_not_grow_with_the_dimension():
    real, fake = torch.randn(40, 200).requires_grad_(), torch.randn(40, 200)
    with Largest() as largest:
        value = mmd2(real, fake, L1LaplaceKernel(200.0))
        (gradient,) = torch.autograd.grad(value, real, create_graph=True)
        gradient.square().sum().backward()
    assert largest.elements <= 40 * 200


def test_far_scores_keep_their_digits():
    real, fake = scores(20, 4, 1).float(), scores(20, 4, 2).float()
    real[0] += 1e7
    expected = mmd2(real.double(), fake.double(), L1LaplaceKernel(3.0))
    assert_close(mmd2(real + 0, fake, L1LaplaceKernel(3.0)).double(), expected, rtol=1e-5, atol=1e-7)
    moved_real, moved_fake = (scores(20, 4, seed).float() + 1e4 for seed in (1, 2))
    expected = mmd2(moved_real.double(), moved_fake.double(), L1LaplaceKernel(3.0))
    assert_close(mmd2(moved_real, moved_fake, L1LaplaceKernel(3.0)).double(), expected, rtol=1e-5, atol=1e-7)


def test_it_is_refused_by_name_where_it_cannot_be_used():
    with pytest.raises(TypeError, match="got a kernel that contains a L1LaplaceKernel"):
        gradient_constrained_mmd2(A, B, 2 * L1LaplaceKernel())
    with pytest.raises(TypeError, match="got L1LaplaceKernel, whose spectral measure is unknown"):
        mmd2_fourier(A, B, L1LaplaceKernel(), frequencies=3)
