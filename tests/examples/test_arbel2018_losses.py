"""The losses of Arbel et al.: closed forms, and the Sobolev GAN's constraint."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch
from arbel2018.losses import Loss, SobolevLoss, make_loss
from arbel2018.presets import PENALISED, Arbel2018, resolved
from torch import nn
from torch.testing import assert_close

REAL = torch.tensor([[1.0, 2.0], [0.0, -1.0], [3.0, 1.0]], dtype=torch.float64)
FAKE = torch.tensor([[-1.0, 0.5], [2.0, 2.0]], dtype=torch.float64)
WEIGHT = (0.5, -0.25)


def made(loss: str, **options: object) -> Loss:
    return make_loss(resolved(Arbel2018(out=Path(), loss=loss, **options)))


@pytest.mark.parametrize("loss", ["smmd", "swgan"])
def test_settings_that_are_not_resolved_have_no_weight_of_a_scale(loss: str):
    with pytest.raises(ValueError, match="lambda_: expected a finite number, got nan"):
        make_loss(Arbel2018(out=Path(), loss=loss))


def test_a_loss_without_a_branch_is_refused():
    with pytest.raises(ValueError, match="^loss: expected one that make_loss .* makes, got mmd-imq"):
        make_loss(Arbel2018(out=Path(), loss="mmd-imq"))  # type: ignore[arg-type]


def linear_critic(*weight: float) -> nn.Sequential:
    """Return a critic whose score is the inner product with a vector."""
    layer = nn.Linear(len(weight), 1, bias=False, dtype=torch.float64)
    layer.weight = nn.Parameter(torch.tensor([weight], dtype=torch.float64))
    return nn.Sequential(nn.Identity(), layer)


def scores(images: torch.Tensor) -> list[float]:
    return [sum(w * x for w, x in zip(WEIGHT, image, strict=True)) for image in images.tolist()]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def check(loss: Loss, critic_loss: float, generator_loss: float) -> None:
    critic = linear_critic(*WEIGHT)
    assert_close(loss.critic_loss(critic, REAL, FAKE).item(), critic_loss)
    assert_close(loss.generator_loss(critic, REAL, FAKE).item(), generator_loss)


def test_the_gan_has_its_closed_form():
    real, fake = scores(REAL), scores(FAKE)
    of_critic = mean([softplus(-s) for s in real]) + mean([softplus(s) for s in fake])
    check(made("gan"), of_critic, mean([softplus(-s) for s in fake]))


def test_the_wgan_has_its_closed_form():
    real, fake = scores(REAL), scores(FAKE)
    check(made("wgan"), mean(fake) - mean(real), -mean(fake))


def mmd2(sigma: float = 1.0) -> float:
    """Return the squared MMD of the scores by its definition."""
    real, fake = scores(REAL), scores(FAKE)

    def kernel(a: float, b: float) -> float:
        return math.exp(-((a - b) ** 2) / (2 * sigma**2))

    within = [mean([kernel(a, b) for i, a in enumerate(x) for b in x[:i]]) for x in (real, fake)]
    return sum(within) - 2 * mean([kernel(a, b) for a in real for b in fake])


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_the_mmd_has_its_closed_form(sigma: float):
    check(made("mmd", sigma=sigma), -mmd2(sigma), mmd2(sigma))


@pytest.mark.parametrize("loss", ["gan", "wgan", "mmd", "smmd", "swgan"])
def test_the_critics_gradient_is_that_of_the_value_of_its_loss(loss: str):
    chosen = made(loss)

    def value(weight: torch.Tensor) -> torch.Tensor:
        return chosen.critic_loss(linear_critic(*weight.tolist()), REAL, FAKE)

    critic, step = linear_critic(*WEIGHT), 1e-6 * torch.eye(2, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(chosen.critic_loss(critic, REAL, FAKE), list(critic.parameters()))
    weight = torch.tensor(WEIGHT, dtype=torch.float64)
    differences = [(value(weight + each) - value(weight - each)).item() / 2e-6 for each in step]
    assert gradient.flatten().tolist() == pytest.approx(differences, rel=1e-6)  # of which rounding leaves nine digits


# Scaled and penalised losses, with a critic whose gradient is the same everywhere

SQUARED_GRADIENT = sum(w**2 for w in WEIGHT)


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_smmd_is_the_practical_formula(sigma: float):
    expected = mmd2(sigma) / (1 + 7 * SQUARED_GRADIENT / sigma**2)
    check(made("smmd", scale_weight=7.0, sigma=sigma), -expected, expected)


def test_swgan_is_the_practical_formula():
    real, fake = scores(REAL), scores(FAKE)
    scale = 1 + 7 * (mean([s**2 for s in real]) + SQUARED_GRADIENT)
    expected = (mean(real) - mean(fake)) / math.sqrt(scale)
    check(made("swgan", scale_weight=7.0), -expected, expected)


def test_wgan_gp_and_l2_have_their_closed_form():
    fake = torch.cat([FAKE, FAKE[:1]])
    loss, critic = made("wgan", gradient_penalty=10.0, l2_penalty=3.0), linear_critic(*WEIGHT)
    values = [scores(images) for images in (REAL, fake)]
    penalty = 10 * (math.sqrt(SQUARED_GRADIENT) - 1) ** 2 + 3 * sum(mean([s**2 for s in part]) for part in values)
    expected = mean(values[1]) - mean(values[0]) + penalty
    assert_close(loss.critic_loss(critic, REAL, fake).item(), expected)
    assert_close(loss.generator_loss(critic, REAL, fake).item(), -mean(values[1]))


def test_the_penalty_of_mmd_is_on_the_witness_function():
    # All points are the same, so the random ones between them are too, where the witness function is flat.
    same = torch.zeros(3, 2, dtype=torch.float64)
    loss = made("mmd", gradient_penalty=2.0)
    assert_close(loss.critic_loss(linear_critic(*WEIGHT), same, same).item(), 2.0)


@pytest.mark.parametrize("loss", PENALISED)
def test_the_l2_penalty_is_on_all_activations(loss: str):
    critic = nn.Sequential(nn.Linear(2, 3), nn.LeakyReLU(0.2), nn.Linear(3, 1)).double()
    fake = torch.cat([FAKE, FAKE[:1]])
    plain, penalised = (made(loss, l2_penalty=weight).critic_loss(critic, REAL, fake) for weight in (0.0, 2.0))
    hidden = [critic[:2](images) for images in (REAL, fake)]
    squares = [part.square().mean() for part in (*hidden, *map(critic[2], hidden))]
    assert_close(penalised - plain, 2 * sum(squares))


# The Sobolev GAN


def test_the_sobolev_gan_has_its_closed_form():
    loss = made("sobolev", sobolev_rho=0.5)
    loss.decays = (0.0, 0.0)
    loss.multiplier.fill_(2.0)
    real, fake = scores(REAL), scores(FAKE)
    constraint = sum(w**2 for w in WEIGHT) - 1
    check(loss, mean(fake) - mean(real) + 2 * constraint + 0.25 * constraint**2, -mean(fake))
    assert loss.multiplier.item() == pytest.approx(2 + 0.5 * constraint)


def test_the_gradient_of_the_sobolev_gan_counts_at_the_data():
    class Square(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.square().sum(1, keepdim=True)

    critic = nn.Sequential(Square(), nn.Linear(1, 1, bias=False, dtype=torch.float64))
    with torch.no_grad():
        critic[1].weight.fill_(1.0)
    loss = made("sobolev", sobolev_rho=1.0)
    loss.critic_loss(critic, REAL, FAKE)
    # The gradient is 2 x: four times the mean squared norm, which is 16 / 3 at the data.
    assert loss.multiplier.item() == pytest.approx(4 * 16 / 3 - 1)


def test_the_sobolev_gan_finds_the_critic_of_unit_gradient_and_its_multiplier():
    # max w (E x - E y) such that w^2 = 1: w = 1, where the multiplier is half the difference of the means.
    real, fake = torch.full((4, 1), 3.0, dtype=torch.float64), torch.zeros(4, 1, dtype=torch.float64)
    critic, loss = linear_critic(0.3), SobolevLoss(0.5, decays=(0.0, 0.0))
    sgd = torch.optim.SGD(critic.parameters(), lr=0.1)
    for _ in range(400):
        sgd.zero_grad()
        loss.critic_loss(critic, real, fake).backward()
        sgd.step()
    assert critic[1].weight.item() == pytest.approx(1, abs=1e-4)
    assert loss.multiplier.item() == pytest.approx(1.5, abs=1e-4)


def test_the_last_layer_decays_by_its_own_weight():
    critic = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).double()
    plain = SobolevLoss(1.0, decays=(0.0, 0.0)).critic_loss(critic, REAL, FAKE)
    decayed = SobolevLoss(1.0, decays=(0.25, 4.0)).critic_loss(critic, REAL, FAKE)
    squares = [sum(p.square().sum() for p in layer.parameters()) for layer in (critic[0], critic[2])]
    assert_close(decayed - plain, 0.25 * squares[0] + 4 * squares[1])


def test_the_gradient_of_the_sobolev_gan_is_that_of_its_value():
    critic = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    loss = SobolevLoss(0.5, decays=(0.1, 0.2)).eval()
    loss.multiplier.fill_(0.75)
    names = [name for name, _ in critic.named_parameters()]

    def value(*parameters: torch.Tensor) -> torch.Tensor:
        class Called(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.func.functional_call(critic, dict(zip(names, parameters, strict=True)), (x,))

        real, fake = REAL.clone().requires_grad_(), FAKE.clone().requires_grad_()
        scores = [Called()(x) for x in (real, fake)]
        (gradient,) = torch.autograd.grad(scores[0].sum(), real, create_graph=True)
        constraint = gradient.square().sum(1).mean() - 1
        squares = [0.1 * p.square().sum() for p in parameters[:2]] + [0.2 * p.square().sum() for p in parameters[2:]]
        objective = scores[1].mean() - scores[0].mean()
        return objective + 0.75 * constraint + 0.25 * constraint.square() + sum(squares)

    parameters = tuple(critic.parameters())
    assert torch.autograd.gradcheck(value, parameters)
    expected = torch.autograd.grad(value(*parameters), parameters)
    assert_close(torch.autograd.grad(loss.critic_loss(critic, REAL, FAKE), parameters), expected)


def test_the_multiplier_moves_in_training_only_and_is_a_state():
    loss = SobolevLoss(1.0).eval()
    loss.critic_loss(linear_critic(2.0, 0.0), REAL, FAKE)
    assert loss.multiplier == 0
    loss.train().critic_loss(linear_critic(2.0, 0.0), REAL, FAKE)
    assert loss.multiplier == 3
    other = SobolevLoss(1.0)
    other.load_state_dict(loss.state_dict())
    assert other.multiplier == 3


@pytest.mark.parametrize("loss", get_args(get_type_hints(Arbel2018)["loss"]))
def test_the_generators_loss_reaches_every_generated_image(loss: str):
    fake = FAKE.clone().requires_grad_()
    value = made(loss).generator_loss(linear_critic(*WEIGHT), REAL, fake)
    (gradient,) = torch.autograd.grad(value, fake)
    assert gradient.flatten(1).norm(dim=1).min() > 0
