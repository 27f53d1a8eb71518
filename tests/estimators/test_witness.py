"""The witness function of MMD."""

import pytest
import torch
from authors import tensor
from cases import CASES, KernelCase, scores
from oracles import mean_kernel
from torch.testing import assert_close

from torch_mmd_losses import (
    RBFKernel,
    mmd2,
    witness,
)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_witness_is_a_difference_of_means(case: KernelCase):
    points, real, fake = scores(4, 2), scores(5, 2, 1), scores(3, 2, 2)
    expected = [
        mean_kernel(case.scalar, real, t[None], distinct=False)
        - mean_kernel(case.scalar, fake, t[None], distinct=False)
        for t in points
    ]
    assert_close(witness(points, real=real, fake=fake, kernel=case.make()), tensor(expected))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_means_of_the_witness_make_mmd2(case: KernelCase):
    real, fake, kernel = scores(5, 2, 1), scores(3, 2, 2), case.make()
    found = witness(real, real, fake, kernel).mean() - witness(fake, real, fake, kernel).mean()
    assert_close(found, mmd2(real, fake, kernel, estimator="biased"))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.smooth])
def test_the_witness_is_differentiable_twice(name):
    kernel = CASES[name].make()
    arguments = [scores(m, 2, seed).requires_grad_() for seed, m in enumerate((2, 3, 2))]
    assert torch.autograd.gradcheck(lambda *x: witness(*x, kernel), arguments)
    assert torch.autograd.gradgradcheck(lambda *x: witness(*x, kernel), arguments)


def test_wrong_arguments_are_refused():
    x = torch.randn(3, 2)
    with pytest.raises(TypeError, match="kernel: expected a Kernel"):
        witness(x, x, x, "rbf")
    with pytest.raises(ValueError, match="points, real: expected the same score dimension"):
        witness(x[:, :1], x, x, RBFKernel())
    with pytest.raises(ValueError, match="real, fake: expected the same dtype"):
        witness(x, x, x.double(), RBFKernel())
