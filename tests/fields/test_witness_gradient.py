"""The gradient of the witness function of MMD."""

import pytest
import torch
from cases import CASES, SMOOTH, scores
from sizes import Largest
from torch.testing import assert_close

from torch_mmd_losses import EnergyKernel, LinearKernel, RBFKernel, mmd2, witness, witness_gradient
from torch_mmd_losses.pairs import tiles


@pytest.mark.parametrize("name", SMOOTH)
def test_it_is_the_gradient_of_the_witness(name):
    points, real, fake = scores(4, 2).requires_grad_(), scores(5, 2, 1), scores(3, 2, 2)
    kernel = CASES[name].make()
    (expected,) = torch.autograd.grad(witness(points, real, fake, kernel).sum(), points)
    assert_close(witness_gradient(points, real=real, fake=fake, kernel=kernel), expected)


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_velocity_of_mmd2(name):
    real, fake, kernel = scores(5, 2, 1), scores(3, 2, 2).requires_grad_(), CASES[name].make()
    (expected,) = torch.autograd.grad(mmd2(real, fake, kernel, estimator="biased"), fake)
    assert_close(witness_gradient(fake, real=real, fake=fake, kernel=kernel), -1.5 * expected)


def test_it_is_differentiable_by_all_tensors():
    inputs = [scores(m, 2, seed).requires_grad_() for seed, m in enumerate((2, 3, 2))]
    for kernel in (RBFKernel(), RBFKernel() + LinearKernel()):

        def field(points, real, fake, kernel=kernel):
            return witness_gradient(points, real=real, fake=fake, kernel=kernel)

        assert torch.autograd.gradcheck(field, inputs)
        jacobians = torch.func.jacrev(field, argnums=(0, 1, 2))(*inputs)
        assert_close(jacobians, torch.autograd.functional.jacobian(field, tuple(inputs)))


def test_one_far_sample_leaves_the_field_its_digits():
    points, real, fake = scores(20, 4).float(), scores(30, 4, 1).float(), scores(25, 4, 2).float()
    real[0] += 1e7
    wide = {"real": real.double(), "fake": fake.double()}
    for kernel in (RBFKernel(2.0), EnergyKernel()):
        found = witness_gradient(points, real=real, fake=fake, kernel=kernel)
        assert_close(found.double(), witness_gradient(points.double(), kernel=kernel, **wide), rtol=0, atol=1e-5)


def test_the_witness_and_its_gradient_have_no_gram_matrix(monkeypatch):
    monkeypatch.setattr(tiles, "CPU_TILE", 32)
    points, real, fake = (scores(150, 2, seed).float().requires_grad_() for seed in range(3))
    with Largest() as largest:
        field = witness_gradient(points, real=real, fake=fake, kernel=RBFKernel())
        torch.autograd.grad(field.square().sum(), (points, real))
        values = witness(points, real=real, fake=fake, kernel=RBFKernel())
        (gradient,) = torch.autograd.grad(values.sum(), points, create_graph=True)
        torch.autograd.grad(gradient.square().sum(), (points, fake))
    assert largest.elements <= 32 * 32 * 2  # of 45,000 pairs


def test_derivatives_beyond_those_that_are_written_by_hand_are_refused_by_name():
    points, real, fake = scores(4, 2).requires_grad_(), scores(5, 2, 1), scores(3, 2, 2)

    def total(points):
        return witness_gradient(points, real=real, fake=fake, kernel=RBFKernel()).square().sum()

    (first,) = torch.autograd.grad(total(points), points, create_graph=True)
    expected = torch.func.grad(lambda points: torch.func.grad(total)(points).sum())(points.detach())
    assert expected.isfinite().all()
    assert_close(first, torch.func.grad(total)(points.detach()))
    with pytest.raises(NotImplementedError, match="expected at most two derivatives with respect to the samples"):
        torch.autograd.grad(first.sum(), points)


def test_points_that_are_equal_to_constant_samples_have_their_own_derivatives():
    # The pairs of equal index count: at distance zero, the derivative of the gradient of the kernel is not zero.
    points, real, fake, kernel = scores(4, 2).requires_grad_(), scores(5, 2, 1), scores(4, 2), RBFKernel()

    def expected(points):
        rows = [
            torch.func.grad(lambda t: kernel(t.unsqueeze(0), real).mean() - kernel(t.unsqueeze(0), fake).mean())(point)
            for point in points
        ]
        return torch.stack(rows)

    def field(points):
        return witness_gradient(points, real=real, fake=fake, kernel=kernel)

    assert_close(field(points), expected(points.detach()))
    assert_close(torch.autograd.functional.jacobian(field, points), torch.func.jacrev(expected)(points.detach()))
