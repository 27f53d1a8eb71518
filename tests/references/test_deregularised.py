"""The (de)-regularised MMD to a fixed target."""

import json
from pathlib import Path

import pytest
import torch
from cases import scores
from torch.testing import assert_close

from torch_mmd_losses import RBFKernel, mmd2, witness
from torch_mmd_losses.references import deregularised

DATA = Path(__file__).parents[1] / "data" / "modern-mmd.json"


def test_the_numbers_of_the_authors_code():
    case = next(case for case in json.loads(DATA.read_text())["cases"] if case["id"] == "drmmd")
    target, fake = (torch.tensor(case["inputs"][name], dtype=torch.float64) for name in ("target", "particles"))
    kernel, outputs = RBFKernel(1.3), case["outputs"]
    factor = deregularised.factorised(target, kernel, case["settings"]["lmbda"])
    fake.requires_grad_()
    value = deregularised.value(factor, fake, kernel)
    assert float(value.detach()) == pytest.approx(outputs["drmmd"], rel=1e-10)
    points = fake.detach().clone().requires_grad_()
    values = deregularised.witness(factor, points, fake.detach(), kernel)
    # Their witness is that of particles minus target, and their particles move against its gradient.
    assert_close(values, -torch.tensor(outputs["drmmd_witness"], dtype=torch.float64), rtol=0, atol=1e-10)
    (velocity,) = torch.autograd.grad(values.sum(), points)
    assert_close(velocity, -torch.tensor(outputs["drmmd_velocity"], dtype=torch.float64), rtol=0, atol=1e-10)
    (gradient,) = torch.autograd.grad(value, fake)
    assert_close(velocity, -len(fake) * gradient)


def test_with_much_regularisation_it_is_mmd2():
    target, fake, points, kernel = scores(7, 2), scores(5, 2, 1), scores(4, 2, 2), RBFKernel()
    factor = deregularised.factorised(target, kernel, 1e9)
    assert_close(deregularised.value(factor, fake, kernel), mmd2(target, fake, kernel, estimator="biased"))
    found = deregularised.witness(factor, points, fake, kernel)
    assert_close(found, 2 * witness(points, target, fake, kernel))


def test_it_is_differentiable_twice_and_zero_at_the_target():
    target, kernel = scores(4, 2), RBFKernel()
    factor = deregularised.factorised(target, kernel, 0.1)
    assert abs(float(deregularised.value(factor, target, kernel))) < 1e-13
    inputs = [scores(3, 2, 1).requires_grad_(), scores(2, 2, 2).requires_grad_()]
    assert torch.autograd.gradgradcheck(lambda fake, _: deregularised.value(factor, fake, kernel), inputs)
    assert torch.autograd.gradcheck(lambda fake, points: deregularised.witness(factor, points, fake, kernel), inputs)


def test_float32_scores_have_float32_values():
    target, fake, kernel = scores(4, 2).float(), scores(3, 2, 1).float(), RBFKernel()
    factor = deregularised.factorised(target, kernel, 0.1)
    assert factor.cholesky.dtype == torch.float64
    assert deregularised.value(factor, fake, kernel).dtype == torch.float32
    assert deregularised.witness(factor, fake, fake, kernel).dtype == torch.float32
