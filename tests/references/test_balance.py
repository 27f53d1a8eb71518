"""Losses relative to themselves, and MMD^2 relative to that of held-out real samples."""

import warnings

import pytest
import torch
from cases import scores
from reference_kinds import KINDS
from torch.testing import assert_close

from torch_mmd_losses import MMDReference, RBFKernel, UsageWarning, mmd2, ratio_to_real, relative

# Relative losses


def test_the_gradient_of_a_relative_loss_is_that_of_its_logarithm():
    fake = scores(20, 3, 1).requires_grad_()
    loss = mmd2(scores(30, 3), fake, RBFKernel(), estimator="biased")
    (expected,) = torch.autograd.grad(loss.log(), fake, retain_graph=True)
    value = relative(loss, eps=1e-12)
    (found,) = torch.autograd.grad(value, fake)
    assert_close(value, torch.ones_like(value))
    assert_close(found, expected)


def test_eps_bounds_the_division():
    loss = torch.tensor(3e-3, dtype=torch.float64, requires_grad=True)
    value = relative(loss, eps=1e-3)
    (gradient,) = torch.autograd.grad(value, loss)
    assert_close((value, gradient), (value.new_tensor(0.75), value.new_tensor(250.0)))


def test_a_gradient_of_a_negative_loss_keeps_its_direction():
    loss = torch.tensor(-0.5, requires_grad=True)
    with pytest.warns(UsageWarning, match="^relative: expected a loss above eps=1e-07, got -0.5, .*estimator='biased'"):
        value = relative(loss)
    (gradient,) = torch.autograd.grad(value, loss)
    assert value < 0
    assert gradient > 0


def test_a_loss_that_becomes_too_small_later_is_warned_of_once():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in (1.0, 1e-9, 1e-9):
            relative(torch.tensor(number))
    assert [warning.category for warning in caught] == [UsageWarning]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses_of_half_precision_are_divided_in_float32(dtype):
    value = relative(torch.tensor(1e-3, dtype=dtype))
    assert value.dtype == torch.float32
    assert_close(value, torch.tensor(1.0), rtol=2e-4, atol=0)


def test_relative_losses_compile_and_can_be_transformed():
    loss = torch.tensor(2.0)
    compiled = torch.compile(relative, backend="eager", fullgraph=True)
    assert_close(compiled(loss), relative(loss))
    assert_close(torch.func.grad(relative)(loss), torch.tensor(0.5))
    assert_close(torch.func.vmap(relative)(torch.ones(3)), torch.ones(3))


def test_losses_without_values_are_divided_without_a_look_at_them():
    for _ in range(2):
        assert relative(torch.zeros((), device="meta")).is_meta


# Ratios


@pytest.mark.parametrize("kind", KINDS)
def test_the_ratio_is_that_of_biased_values(kind):
    real, held_out = scores(60, 3), scores(20, 3, 1)
    fake = scores(20, 3, 2, shift=0.3).requires_grad_()
    reference = MMDReference(real, RBFKernel(), kind=kind, generator=torch.Generator().manual_seed(0))
    ratio = ratio_to_real(reference, fake, held_out)
    assert_close(ratio, reference.mmd2(fake) / reference.mmd2(held_out))
    if kind == "exact":
        of_fake, of_real = (mmd2(real, x, RBFKernel(), estimator="biased") for x in (fake, held_out))
        assert_close(ratio, of_fake / of_real)
    (gradient,) = torch.autograd.grad(ratio, fake)
    (expected,) = torch.autograd.grad(reference.mmd2(fake), fake)
    assert_close(gradient, expected / reference.mmd2(held_out))


def test_the_ratio_of_real_samples_is_near_one_and_of_others_above():
    real = scores(3000, 8)
    reference, kernel = MMDReference(real[:2000], RBFKernel()), RBFKernel()
    assert abs(float(ratio_to_real(reference, real[2000:2500], real[2500:])) - 1) < 0.1
    assert ratio_to_real(reference, real[2000:2500] + 0.3, real[2500:]) > 1.2
    # The floor depends on the number of samples, so values of unequal samples cannot be compared.
    assert mmd2(real[:2000], real[2000:2050], kernel, estimator="biased") > 5 * reference.mmd2(real[2500:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_division_by_rounding_is_refused(dtype):
    real = scores(500, 8).to(dtype)
    reference = MMDReference(real, RBFKernel())
    with pytest.raises(ValueError, match="^held_out: expected real samples that are not the rows of the reference"):
        ratio_to_real(reference, scores(500, 8, 1).to(dtype), real)
    assert 0 <= ratio_to_real(reference, real, scores(500, 8, 1).to(dtype)) + 1e-3 < 2e-3
