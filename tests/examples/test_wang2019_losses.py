"""The losses of Table 1 by name, and the gradient penalty: closed forms, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close
from wang2019.losses import MMD, NAMES, make_loss, penalised

from torch_mmd_losses import (
    MMDLoss,
    RationalQuadraticMix,
    RBFBKernel,
    RBFKernel,
    RBFMix,
    ScaledMMDLoss,
    gradient_penalty,
)

REAL = torch.tensor([[0.5], [3.0]], dtype=torch.float64)
FAKE = torch.tensor([[-2.0], [0.25]], dtype=torch.float64)


def softplus(*values: float) -> float:
    """Return the mean of log(1 + exp(value))."""
    return sum(math.log1p(math.exp(value)) for value in values) / len(values)


CLOSED_FORMS = {
    "minimax": (softplus(-0.5, -3) + softplus(-2, 0.25), -softplus(-0.5, -3) - softplus(-2, 0.25)),
    "non-saturating": (softplus(-0.5, -3) + softplus(-2, 0.25), softplus(2, -0.25)),
    "hinge": (0.25 + 0.625, 0.875),
    "wasserstein": (-0.875 - 1.75, 0.875),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_losses_of_single_scores_have_their_closed_forms(name: str):
    losses = make_loss(name).both(real=REAL, fake=FAKE)
    for loss, expected in zip(losses, CLOSED_FORMS[name], strict=True):
        assert_close(loss, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_losses_of_single_scores_are_computed_in_float32_at_least(name: str):
    exact = make_loss(name).both(real=REAL, fake=FAKE)
    for loss, expected in zip(make_loss(name).both(real=REAL.bfloat16(), fake=FAKE.bfloat16()), exact, strict=True):
        assert_close(loss, expected.float())


@pytest.mark.parametrize(
    ("name", "kernel", "lambda_"),
    [
        ("mmd-rbf", RBFMix(), -1.0),
        ("mmd-rq", RationalQuadraticMix(), -1.0),
        ("mmd-rbf-b", RBFBKernel(), -1.0),
        ("mmd-rep", RBFKernel(sigma=1.0), 1.0),
        ("mmd-rep-b", RBFBKernel(sigma=1.0), 1.0),
    ],
)
def test_mmd_losses_are_those_of_the_library(name: str, kernel, lambda_: float):
    real, fake = torch.randn(5, 16), torch.randn(5, 16)
    for chosen in (None, 0.5):
        expected = MMDLoss(kernel, lambda_ if chosen is None else chosen, estimator="u_statistic")
        assert_close(make_loss(name, lambda_=chosen).both(real, fake), expected.both(real, fake))


def test_names_are_those_of_the_table_and_scaled_mmd():
    assert {*NAMES} == {*CLOSED_FORMS, *(f"mmd-{rest}" for rest in ("rbf", "rq", "rbf-b", "rep", "rep-b")), "smmd"}
    assert {*NAMES} - {*MMD} == {*CLOSED_FORMS, "smmd"}


@pytest.mark.parametrize("joint", [False, True])
def test_scaled_mmd_is_that_of_the_library(joint: bool):
    loss = make_loss("smmd", joint=joint)
    assert isinstance(loss, ScaledMMDLoss)
    assert (loss.scale, loss.lambda_, loss.estimator, loss.global_batch) == ("practical", 0.1, "u_statistic", joint)
    assert loss.kernel.sigma == 1


def test_the_penalty_is_a_mean_over_images_and_sums_over_scores():
    images = torch.tensor([[1.0, 2.0], [3.0, 5.0]], dtype=torch.float64, requires_grad=True)
    scores = torch.stack([images.square().sum(1), images.prod(1)], dim=1)
    # Rows of the first Jacobian: (2, 4) and (2, 1); of the second: (6, 10) and (5, 3).
    expected = (0.25 - 1) / (1 + 0.5 * (20 + 5 + 136 + 34) / 2)
    loss = torch.tensor(0.25, dtype=torch.float64)
    assert_close(penalised(loss, gradient_penalty(scores, images, target=0.0), weight=0.5).item(), expected)


def test_a_kernel_with_trained_parameters_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(MMD, "mmd-trained", (lambda: RBFKernel(trainable=True), 0.5))
    with pytest.raises(ValueError, match="^loss: expected a kernel without trained parameters.*got mmd-trained"):
        make_loss("mmd-trained")
