"""Kernels of the inner product."""

import pytest
import torch
from cases import Cubic, scores
from torch.testing import assert_close

from torch_mmd_losses import (
    LinearKernel,
    PolynomialKernel,
    RBFKernel,
    mmd2_and_variance,
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
