"""Scores that are NaN or infinite are never hidden."""

import math

import pytest
import torch
from cases import CASES, KernelCase, scores
from torch import nn

from torch_mmd_losses import (
    LinearKernel,
    MMDLoss,
    RBFKernel,
    ScaledMMDLoss,
    gradient_penalty,
    mmd2,
    mmd2_and_variance,
    mmd2_blocks,
    mmd_test,
    relative_mmd_test,
    witness,
)

every_kernel = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
every_way = pytest.mark.parametrize(
    ("m", "options"),
    [(6, {}), (6, {"tile_size": 2}), (300, {"tile_size": 256})],
    ids=["dense", "small tiles", "tiles"],
)


def with_one(value, m, seed=0):
    """Return scores of which one is `value`."""
    sample = scores(m, 3, seed).float()
    sample[-1, 1] = value
    return sample.requires_grad_()


@every_kernel
@every_way
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_losses_and_terms(case: KernelCase, m, options, value):
    for lambda_ in (-1.0, 1.0):
        loss = MMDLoss(case.make(), lambda_, **options)
        for real, fake in (
            (with_one(value, m), scores(m, 3, 1).float()),
            (scores(m, 3, 1).float(), with_one(value, m)),
        ):
            losses, terms = loss.both(real, fake), loss.terms(real, fake)
            assert not any(each.isfinite() for each in losses)
            assert terms.saturated.isnan()
            assert not terms.k_rf.isfinite()


@every_kernel
def test_gram_matrices_and_compiled_values(case: KernelCase):
    real, fake = with_one(math.nan, 4).detach(), scores(4, 3, 1).float()
    assert case.make()(real, fake)[-1].isnan().all()
    assert torch.func.vmap(lambda x, y: mmd2(x, y, case.make()))(real[None], fake[None]).isnan().all()


def test_terms_of_scaled_losses():
    inputs = torch.randn(5, 3).requires_grad_()
    critic = nn.Linear(3, 1)
    fake = critic(torch.randn(5, 3))
    for kernel in (RBFKernel(), LinearKernel()):
        terms = ScaledMMDLoss(kernel).terms(real=critic(inputs), fake=torch.full_like(fake, math.nan), inputs=inputs)
        assert terms.saturated.isnan()
    assert float(ScaledMMDLoss(LinearKernel()).terms(real=critic(inputs), fake=fake, inputs=inputs).saturated) == 0


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_penalties(target):
    inputs = torch.randn(5, 3).requires_grad_()
    values = (inputs * torch.tensor([1.0, math.nan, 1.0])).sum(1)
    assert gradient_penalty(values, inputs, target=target).isnan()


def test_estimators():
    real, fake, kernel = with_one(math.nan, 8).detach(), scores(8, 3, 1).float(), RBFKernel()
    found = [
        *mmd2_and_variance(real, fake, kernel),
        *mmd2_blocks(real, fake, kernel, block_size=4),
        witness(fake, real=real, fake=fake, kernel=kernel).sum(),
    ]
    assert all(value.isnan() for value in found)


def test_tests_refuse_them():
    broken, good, kernel = with_one(math.nan, 8).detach(), scores(8, 3, 1).float(), RBFKernel()
    for position, name in enumerate(("real", "fake", "other")):
        samples = [good, good + 1, good + 2]
        samples[position] = broken
        message = f"^{name}: expected finite scores, got NaN or infinity in 1 of 8 samples$"
        with pytest.raises(ValueError, match=message):
            relative_mmd_test(*samples, kernel)
    with pytest.raises(ValueError, match="^fake: expected finite scores, got NaN or infinity in 1 of 8 samples$"):
        mmd_test(good, broken)
