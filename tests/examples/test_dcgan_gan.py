"""One update of the networks: whose gradients, from which forward, and what is averaged."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from dcgan.configuration import Configuration, resolved
from dcgan.gan import GAN, gradient_norm
from dcgan.losses import make_loss
from torch import Tensor, nn
from torch.testing import assert_close

from torch_mmd_losses import MMDLoss, RBFKernel
from torch_mmd_losses.results import Losses

REAL = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(5)) * 2 - 1


def make(**settings: object) -> GAN:
    return GAN(resolved(Configuration(dataset="fake", width=2, batch_size=6, device="cpu", **settings)))


def gradients(network: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]


def by_backward(loss: Tensor, network: nn.Module) -> list[Tensor]:
    """Return the gradients of a network by the usual way, which leaves them in all networks."""
    network.zero_grad()
    loss.backward(retain_graph=True)
    return [gradient.clone() for gradient in gradients(network)]


@pytest.mark.parametrize("loss", ["mmd-rep-b", "hinge"])
def test_simultaneous_updates_take_both_gradients_from_one_forward(loss: str):
    gan = make(loss=loss)
    before = copy.deepcopy(gan)
    # Generators of random numbers are copied with their state.
    fake = before.generator(before.noise(6))
    real_scores, fake_scores = before.discriminator(torch.cat([REAL, fake])).chunk(2)
    losses = make_loss(loss).both(real=real_scores, fake=fake_scores)
    expected_g = by_backward(losses.generator, before.generator)
    expected_d = by_backward(losses.discriminator, before.discriminator)
    step = gan.step(REAL)
    assert_close(gradients(gan.discriminator), expected_d)
    assert_close(gradients(gan.generator), expected_g)
    assert_close((step.loss_discriminator, step.loss_generator), (losses.discriminator, losses.generator))
    assert_close((step.real, step.fake), (real_scores, fake_scores))
    assert not any(tensor.requires_grad for tensor in step)


def test_alternating_updates_show_the_generator_the_new_discriminator():
    gan = make(updates="alternating", loss="wasserstein")
    before = copy.deepcopy(gan)
    with torch.no_grad():
        fake = before.generator(before.noise(6))
    scores = before.discriminator(torch.cat([REAL, fake]))
    expected_d = by_backward(scores[6:].mean() - scores[:6].mean(), before.discriminator)
    before.adam_d.step()
    new_scores = before.discriminator(torch.cat([REAL, before.generator(before.noise(6))]))
    expected_g = by_backward(-new_scores[6:].mean(), before.generator)
    gan.step(REAL)
    assert_close(gradients(gan.discriminator), expected_d)
    assert_close(gradients(gan.generator), expected_g)


class PlainRepulsion:
    """The repulsive loss with a Gaussian kernel, as it is written, in float64."""

    def both(self, real: Tensor, fake: Tensor) -> Losses:
        real, fake = real.double(), fake.double()
        others = 1 - torch.eye(len(real), dtype=torch.float64)

        def mean(a: Tensor, b: Tensor) -> Tensor:
            values = torch.exp(-(a[:, None] - b).square().sum(2) / 2)
            return (values * others).sum() / others.sum()

        within_real, cross, within_fake = mean(real, real), mean(real, fake), mean(fake, fake)
        return Losses(within_real - within_fake, within_real - 2 * cross + within_fake)


@pytest.fixture
def in_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("in_float64")
def test_a_loss_that_is_written_out_takes_the_same_path():
    """Also to where the kernel saturates: real scores torn apart, and generated ones in one heap."""
    ours = make(loss="mmd-rep", lr_discriminator=1e-2, lr_generator=5e-4)
    plain = copy.deepcopy(ours)
    plain.loss = PlainRepulsion()
    for _ in range(30):
        step, expected = ours.step(REAL.double()), plain.step(REAL.double())
        assert_close(step, expected, rtol=1e-6, atol=1e-9)
    terms = MMDLoss(RBFKernel()).terms(step.real, step.fake)
    assert terms.k_rr < 0.01
    assert terms.k_ff > 0.99


def test_the_penalty_divides_the_discriminators_loss_only():
    gan = make(loss="mmd-rep", gradient_penalty=0.1)
    before = copy.deepcopy(gan)
    images = torch.cat([REAL, before.generator(before.noise(6))]).detach().requires_grad_()
    scores = before.discriminator(images)
    assert scores.shape == (12, 1)
    losses = make_loss("mmd-rep").both(real=scores[:6], fake=scores[6:])
    (jacobian,) = torch.autograd.grad(scores[:6].sum(), images, create_graph=True)
    expected = (losses.discriminator - 1) / (1 + 0.1 * jacobian.square().sum() / 6)
    expected_d = by_backward(expected, before.discriminator)
    step = gan.step(REAL)
    assert_close((step.loss_discriminator, step.loss_generator), (expected, losses.generator))
    assert_close(gradients(gan.discriminator), expected_d)


@pytest.mark.parametrize("updates", ["simultaneous", "alternating"])
def test_scaled_mmd_takes_the_gradient_at_the_real_images(updates: str):
    gan = make(loss="smmd", updates=updates)
    before = copy.deepcopy(gan)
    real = REAL.clone().requires_grad_()
    scores = before.discriminator(real)
    (jacobian,) = torch.autograd.grad(scores.sum(), real, create_graph=True)
    losses = MMDLoss(RBFKernel(), estimator="u_statistic").both(
        real=scores, fake=before.discriminator(before.generator(before.noise(6)))
    )
    scale = 1 / (1 + 10 * jacobian.square().sum() / 6)
    expected_d = by_backward(-scale * losses.generator, before.discriminator)
    step = gan.step(REAL)
    assert_close(step.loss_discriminator, (-scale * losses.generator).detach())
    assert_close(gradients(gan.discriminator), expected_d)
    assert step.real.shape == (6, 1)
    if updates == "simultaneous":
        assert_close(gradients(gan.generator), by_backward(scale.detach() * losses.generator, before.generator))


def test_both_networks_learn_by_adam_with_their_own_rates():
    gan = make(lr_discriminator=0.25, lr_generator=0.125, normalisation="none")
    before = copy.deepcopy(gan)
    gan.step(REAL)
    for adam in (gan.adam_d, gan.adam_g):
        assert adam.param_groups[0]["betas"] == (0.5, 0.999)
        assert adam.param_groups[0]["eps"] == 1e-8
    # The first step of Adam is the learning rate, whatever the gradient.
    for network, rate in (("discriminator", 0.25), ("generator", 0.125)):
        steps = [
            (new - old).abs().max()
            for new, old in zip(getattr(gan, network).parameters(), getattr(before, network).parameters(), strict=True)
        ]
        assert max(steps).item() == pytest.approx(rate, rel=1e-3)


def test_the_average_moves_by_its_decay_and_copies_the_statistics():
    gan = make(ema_decay=0.5)
    for iteration in range(1, 12):
        before = [average.clone() for average in gan.averaged.parameters()]
        gan.step(REAL)
        decay = min(0.5, (1 + iteration) / (10 + iteration))
        for old, new, current in zip(before, gan.averaged.parameters(), gan.generator.parameters(), strict=True):
            assert_close(new, decay * old + (1 - decay) * current)
    for average, current in zip(gan.averaged.buffers(), gan.generator.buffers(), strict=True):
        assert torch.equal(average, current)
    assert not gan.averaged.training


def test_samples_of_an_image_do_not_depend_on_the_others():
    gan = make()
    gan.step(REAL)
    noise = gan.noise(300)
    assert_close(gan.sample(noise)[290:], gan.sample(noise[290:]))


def test_a_seed_decides_the_noise():
    assert torch.equal(make(seed=1).noise(2), make(seed=1).noise(2))
    assert not torch.equal(make(seed=1).noise(2), make(seed=2).noise(2))


def test_the_gradient_norm_is_that_of_all_gradients_together():
    layer = nn.Linear(2, 1)
    layer.weight.grad, layer.bias.grad = torch.tensor([[2.0, 3.0]]), torch.tensor([6.0])
    assert_close(gradient_norm(layer), torch.tensor(7.0))
