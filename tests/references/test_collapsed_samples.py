"""Fake samples that nearly coincide, as those of a generator before training do."""

import pytest
import torch
from torch.testing import assert_close

from torch_mmd_losses import Kernel, LaplaceKernel, MaternKernel, MMDReference, RationalQuadraticMix, RBFKernel, mmd2


@pytest.mark.parametrize(
    "kernel", [RBFKernel(4.0), LaplaceKernel(9.0), MaternKernel(2.5, 9.0), RationalQuadraticMix()], ids=repr
)
@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
@pytest.mark.parametrize("count", [16, 700])
def test_their_mutual_kernel_values_count_in_full(kernel: Kernel, estimator: str, count: int):
    # Alone they are no difference of means, so that the peak of the kernel must not be dropped from their values.
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(100, 8, generator=generator)
    fake = 0.001 * torch.randn(count, 8, generator=generator) + 1
    expected = mmd2(real.double(), fake.double(), kernel, estimator=estimator)
    assert_close(MMDReference(real, kernel).mmd2(fake, estimator=estimator).double(), expected, rtol=1e-5, atol=1e-6)
