"""Kernels of the inner product."""

import pytest
import torch
from cases import Cubic, scores
from torch.testing import assert_close

from torch_mmd_losses import (
    LinearKernel,
    PolynomialKernel,
    RBFKernel,
    ScaledMMDLoss,
    grouped_mmd2,
    kernel_sums,
    mmd2,
    mmd2_and_variance,
    mmd2_blocks,
    mmd2_fourier,
    mmd_test,
    relative_mmd_test,
    witness,
)


def test_the_default_polynomial_is_the_kernel_of_kid():
    a, b = scores(3, 4, 1), scores(5, 4, 2)
    assert_close(PolynomialKernel()(a, b), (a @ b.T / 4 + 1) ** 3)
    assert_close(PolynomialKernel()(a, b), Cubic()(a, b))


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_the_inner_product_of_scores_far_from_zero_keeps_its_digits(offset):
    real, fake, other = (scores(64, 8, seed, shift=offset).float() for seed in (1, 2, 3))
    fake = fake + 0.2
    kernel, precise = LinearKernel() + RBFKernel(), [x.double() for x in (real, fake, other)]
    for estimate in (
        lambda x, y, z: mmd2_and_variance(x, y, kernel).value,
        lambda x, y, z: mmd_test(x, y, kernel, permutations=1).statistic,
        lambda x, y, z: relative_mmd_test(x, y, z, kernel).difference,
        lambda x, y, z: witness(z, x, y, kernel),
        lambda x, y, z: kernel(x, y),
    ):
        value = estimate(real, fake, other)
        assert value.dtype == torch.float32
        assert_close(value, estimate(*precise).float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_without_an_offset_only_products_of_that_degree_count(degree):
    kernel, a, b = PolynomialKernel(degree, offset=0), scores(3, 4, 1), scores(5, 4, 2)
    assert_close(kernel(a, b), (a @ b.T / 4) ** degree)
    # MMD^2 of degree 2 is the mean squared difference of the second moments.
    if degree == 2:
        difference = a.T @ a / 3 - b.T @ b / 5
        assert_close(mmd2(a, b, kernel, estimator="biased"), difference.square().mean())


def test_without_an_offset_scores_at_zero_have_finite_derivatives():
    for degree in (1, 2, 3):
        kernel, zero = PolynomialKernel(degree, offset=0), torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)

        def value(p, kernel=kernel):
            return mmd2(p, scores(4, 2), kernel)

        assert torch.autograd.gradcheck(value, zero, fast_mode=True)
        assert torch.autograd.gradgradcheck(value, zero, fast_mode=True)


def test_an_offset_of_zero_is_kept_by_the_state_and_by_assignments():
    kernel = PolynomialKernel(2)
    kernel.load_state_dict(PolynomialKernel(5, offset=0).state_dict())
    assert repr(kernel) == "PolynomialKernel(degree=5, offset=0.0)"
    kernel.offset = 1.0
    kernel.offset = 0
    assert kernel.offset == 0.0
    with pytest.raises(ValueError, match="^offset: expected a number >= 0, got -1"):
        kernel.offset = -1


class Named(LinearKernel):
    pass


class Doubled(LinearKernel):
    def forward(self, a, b):
        return 2 * super().forward(a, b)


def scaled(real, fake, kernel):
    real = real.requires_grad_()
    return ScaledMMDLoss(kernel, squared=False).discriminator(real=real[:, :1], fake=fake[:, :1], inputs=real)


CALLS = {
    "mmd2": mmd2,
    "mmd2_blocks": lambda x, y, kernel: mmd2_blocks(x, y, kernel, block_size=3).value,
    "mmd2_fourier": lambda x, y, kernel: mmd2_fourier(x, y, kernel, frequencies=2),
    "grouped_mmd2": lambda x, y, kernel: grouped_mmd2(x[None], y[None], kernel),
    "witness": lambda x, y, kernel: witness(x, x, y, kernel),
    "kernel_sums": lambda x, y, kernel: kernel_sums(x, y, kernel)[0],
    "ScaledMMDLoss": scaled,
}


@pytest.mark.parametrize("name", CALLS)
def test_a_subclass_is_linear_unless_it_defines_other_values(name):
    real, fake = scores(6, 4, 1), scores(6, 4, 2)
    expected = CALLS[name](real, fake, LinearKernel())
    assert_close(CALLS[name](real, fake, Named()), expected)
    if name in ("mmd2_fourier", "ScaledMMDLoss"):
        with pytest.raises((TypeError, ValueError), match="got Doubled|got False with Doubled"):
            CALLS[name](real, fake, Doubled())
    else:
        assert_close(CALLS[name](real, fake, Doubled()), 2 * expected)
