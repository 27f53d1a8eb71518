"""Random numbers in code that is compiled for several sizes."""

import pytest
import torch
from torch.testing import assert_close

from torch_mmd_losses import RBFKernel, interpolation_points, mmd2_fourier, mmd_test
from torch_mmd_losses.random_numbers import normal, uniform


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("pair", [(uniform, torch.rand), (normal, torch.randn)], ids=["uniform", "normal"])
def test_numbers_are_those_of_pytorch(pair, dtype):
    mine, theirs = pair
    expected = theirs(33, 5, dtype=dtype, generator=torch.Generator().manual_seed(1))
    found = mine((33, 5), dtype, torch.device("cpu"), torch.Generator().manual_seed(1))
    assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "function",
    [
        lambda real, fake: interpolation_points(real, fake) + 0,
        lambda real, fake: mmd2_fourier(real, fake, RBFKernel(), frequencies=len(real)),
        lambda real, fake: mmd_test(real, fake, RBFKernel(), permutations=9).statistic,
    ],
    ids=["points", "frequencies", "permutations"],
)
def test_compiled_code_takes_another_number_of_samples(function):
    # From the second number on, the compiler traces it as a symbol.
    torch.compiler.reset()
    compiled = torch.compile(function, backend="eager")
    for count in (4, 6):
        real, fake = torch.randn(count, 3), torch.randn(count, 3)
        torch.manual_seed(0)
        expected = function(real, fake)
        torch.manual_seed(0)
        assert_close(compiled(real, fake), expected)
