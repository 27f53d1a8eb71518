"""The updates of one iteration of Arbel et al.: how many, in which order, by which gradients, and what is kept."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from smmd.configuration import Configuration, resolved
from smmd.gan import GAN, Step, clipped
from smmd.loss import Loss
from smmd.networks import FAMILIES
from smmd.presets import PRESETS, rehearsal
from torch import Tensor, nn
from torch.testing import assert_close


def make(own: Loss | None = None, **settings: object) -> GAN:
    torch.manual_seed(0)
    defaults = {"dataset": "fake", "width": 2, "batch_size": 4, "device": "cpu", "size": 8, "loss": "mmd"}
    return GAN(resolved(Configuration(**(defaults | settings))), own)  # type: ignore[arg-type]


def stream(size: int = 8, count: int = 4, seed: int = 0) -> Callable[[], Tensor]:
    """Return what returns new images in [0, 1] whenever it is called."""
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.rand(count, 3, size, size, generator=generator)


class Recorder(Loss):
    """The Wasserstein losses, with a note of who was asked and what was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, Tensor, Tensor, Tensor]] = []

    def _note(self, who: str, critic: nn.Module, real: Tensor, fake: Tensor) -> None:
        weight = next(critic.parameters()).detach().clone()
        self.seen.append((who, weight, real, fake))

    def critic_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        self._note("critic", critic, real, fake)
        return critic(fake).mean() - critic(real).mean()

    def generator_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        self._note("generator", critic, real, fake)
        return -critic(fake).mean()


def test_the_critic_is_updated_first_and_each_time_on_new_images():
    recorder = Recorder()
    gan = make(recorder, critic_steps=3)
    before = copy.deepcopy(gan.generator.state_dict())
    gan.step(stream())
    assert [who for who, *_ in recorder.seen] == ["critic"] * 3 + ["generator"]
    draw = stream()
    for (_, weight, real, fake), (_, after, *_) in zip(recorder.seen, recorder.seen[1:], strict=False):
        assert not torch.equal(weight, after)
        assert torch.equal(real, draw())
        assert not fake.requires_grad
    assert torch.equal(recorder.seen[-1][2], draw())
    assert recorder.seen[-1][3].requires_grad
    assert len({fake.sum().item() for *_, fake in recorder.seen}) == 4
    changed = [name for name, value in gan.generator.named_parameters() if not torch.equal(value, before[name])]
    assert len(changed) == len(list(gan.generator.parameters()))
    assert gan.iteration == 1


def test_updates_are_those_of_adam_with_the_gradients_of_the_losses():
    gan = make(Recorder(), critic_steps=1, clip_norm=0.0, lr_discriminator=0.25, lr_generator=0.125)
    old = copy.deepcopy(gan)
    real, other = (draw := stream())(), draw()
    with torch.no_grad():
        fake = old.generator(old.noise(4))
    loss_d = old.loss.critic_loss(old.discriminator, real, fake)
    loss_d.backward()
    old.adam_d.step()
    loss_g = old.loss.generator_loss(old.discriminator, other, old.generator(old.noise(4)))
    for network in (old.generator, old.discriminator):
        network.zero_grad()
    loss_g.backward()
    old.adam_g.step()
    step = gan.step(stream())
    assert_close(step, Step(loss_d.detach(), loss_g.detach()))
    for network in ("discriminator", "generator"):
        assert_close(list(getattr(gan, network).parameters()), list(getattr(old, network).parameters()))
    for adam, rate in ((gan.adam_d, 0.25), (gan.adam_g, 0.125)):
        (group,) = adam.param_groups
        assert (group["lr"], group["betas"], group["eps"]) == (rate, (0.5, 0.9), 1e-8)


def test_more_steps_of_the_critic_come_at_the_start_and_every_500th_time():
    gan, plain = make(critic_steps_at_start=10), make()
    counts = {}
    for gan.iteration in (0, 19, 20, 21, 499, 500, 501, 1000):
        plain.iteration = gan.iteration
        counts[gan.iteration] = (gan.critic_steps(), plain.critic_steps())
    assert counts == {
        0: (10, 5),
        19: (10, 5),
        20: (5, 5),
        21: (5, 5),
        499: (5, 5),
        500: (10, 5),
        501: (5, 5),
        1000: (10, 5),
    }


def test_each_gradient_is_clipped_by_itself():
    small, large, none = torch.tensor([0.3, 0.4]), torch.tensor([[3.0], [4.0]]), torch.zeros(2)
    assert_close(list(clipped([small, large, none], 1.0)), [small, torch.tensor([[0.6], [0.8]]), none])
    assert clipped([large], 0.0) == [large]
    gan = make(Recorder(), clip_norm=1e-3)
    gan.step(stream())
    for network in (gan.discriminator, gan.generator):
        norms = [parameter.grad.norm().item() for parameter in network.parameters() if parameter.grad is not None]
        assert max(norms) <= 1.001e-3
        assert len(norms) == len(list(network.parameters()))


def test_noise_is_uniform_and_decided_by_the_seed():
    noise = make(seed=1).noise(100)
    assert noise.shape == (100, 128)
    assert -1 <= noise.min() < -0.99
    assert 0.99 < noise.max() < 1
    assert noise.var().item() == pytest.approx(1 / 3, rel=0.05)  # a sample of 12,800 numbers
    assert torch.equal(make(seed=1).noise(100), noise)
    assert not torch.equal(make(seed=2).noise(100), noise)


def test_samples_are_in_the_range_of_all_that_shows_them():
    gan = make()
    gan.step(stream())
    noise = gan.noise(300)
    samples = gan.sample(noise)
    assert -1 < samples.min() < 0 < samples.max() < 1
    assert_close(gan.sample(noise[290:]), samples[290:])
    assert_close(samples[:5], gan.generator.eval()(noise[:5]).detach() * 2 - 1)  # without an average, as in the paper


def test_the_average_moves_by_its_decay():
    gan = make(ema_decay=0.5)
    for iteration in (1, 2):
        before = [average.clone() for average in gan.averaged.parameters()]
        gan.step(stream())
        decay = min(0.5, (1 + iteration) / (10 + iteration))
        for old, new, current in zip(before, gan.averaged.parameters(), gan.generator.parameters(), strict=True):
            assert_close(new, decay * old + (1 - decay) * current)


@pytest.mark.parametrize("settings", [{"loss": "sobolev", "sobolev_rho": 0.1}, {"normalisation": "conv"}, {}])
def test_a_run_that_was_saved_and_loaded_is_bit_for_bit_the_one_that_was_not(settings: dict[str, object]):
    gan, draw = make(**settings), stream()
    gan.step(draw)
    for adam in (gan.adam_d, gan.adam_g):
        adam.param_groups[0]["lr"] *= 0.8
    file = io.BytesIO()
    torch.save(gan.state_dict(), file)
    file.seek(0)
    other = make(**(settings | {"seed": 3}))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.adam_d.param_groups[0]["lr"] == pytest.approx(0.8e-4)
    images = draw()
    steps = [each.step(lambda: images) for each in (gan, other)]
    assert torch.equal(steps[0].loss_generator, steps[1].loss_generator)
    for network in ("generator", "discriminator", "averaged"):
        for a, b in zip(getattr(gan, network).parameters(), getattr(other, network).parameters(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("loss", ["gan", "wgan", "mmd", "sobolev"])
def test_all_losses_train_all_networks(family: str, loss: str):
    size = FAMILIES[family].reduction
    gan = make(loss=loss, family=family, size=size, critic_steps=2)
    draw = stream(size)
    before = [parameter.clone() for parameter in gan.discriminator.parameters()]
    for _ in range(2):
        step = gan.step(draw)
    assert all(torch.isfinite(value) and value.shape == () and not value.requires_grad for value in step)
    gammas = [name for name, _ in gan.discriminator.named_parameters() if name.endswith("scale")]
    assert bool(gammas) == (loss == "sobolev")
    moved = [not torch.equal(a, b) for a, b in zip(before, gan.discriminator.parameters(), strict=True)]
    assert sum(moved) >= len(moved) - 1  # the last bias cancels in all losses but one


@pytest.mark.parametrize("name", PRESETS)
def test_all_presets_train_reduced_networks(name: str):
    preset = replace(rehearsal(PRESETS[name]), width=1, critic_steps=2, device="cpu")
    gan = GAN(resolved(preset))
    before = [parameter.clone() for parameter in gan.generator.parameters()]
    draw = stream(preset.size, preset.batch_size)
    for _ in range(2):
        step = gan.step(draw)
    assert all(torch.isfinite(value) for value in step)
    # Plain critics of one channel hardly pass a gradient on, so not all parameters need move.
    assert any(not torch.equal(a, b) for a, b in zip(before, gan.generator.parameters(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar10-mmd-gan-gp-l2", "imagenet-sn-smmd"])
def test_presets_of_full_size_make_an_iteration(name: str):
    preset = replace(rehearsal(PRESETS[name]), critic_steps=1, device="cpu")
    gan = GAN(resolved(preset))
    step = gan.step(stream(preset.size, preset.batch_size))
    assert all(torch.isfinite(value) for value in step)
