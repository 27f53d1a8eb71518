"""One update of the networks: whose gradients, from which forward, and what is averaged."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from one_step import clock
from one_step import networks as one_step
from torch import Tensor, nn
from torch.testing import assert_close
from trained import last_state, log, train
from training.batches import centred, positions
from training.images import fake
from training.sampling import MovingAverage, averaged
from wang2019 import train as loop
from wang2019.losses import make_loss
from wang2019.networks import make_discriminator, make_generator

from torch_mmd_losses import MMDLoss, RBFKernel
from torch_mmd_losses.results import Losses

BATCH = 6


class Before:
    """What the first step of a training starts from, made from the seed by hand."""

    def __init__(self, scores: int = 1, method: str = "none") -> None:
        torch.manual_seed(0)
        self.G = make_generator(32, width=2)
        self.D = make_discriminator(32, scores=scores, width=2, method=method)
        images = fake(32, 3)
        self.real = centred(images[next(positions(len(images), BATCH, seed=0))])
        self._noise = torch.Generator().manual_seed(0)

    def generate(self) -> Tensor:
        return self.G(torch.randn(BATCH, 128, generator=self._noise))


def step(folder: Path, *options: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train for one iteration; return the log's line and the state."""
    run = train(folder / "run", "--batch-size", str(BATCH), "--iterations", "1", *options)
    return log(run)[0], last_state(run)


def gradients(state: dict[str, Any], network: str) -> list[Tensor]:
    """Return the gradients of the first step, of which Adam's first mean has a half."""
    return [2 * each["exp_avg"] for each in state[f"adam_{network}"]["state"].values()]


def by_backward(loss: Tensor, network: nn.Module) -> list[Tensor]:
    """Return the gradients of a network by the usual way, which leaves them in all networks."""
    network.zero_grad()
    loss.backward(retain_graph=True)
    return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]


@pytest.mark.parametrize(("name", "scores", "method"), [("mmd-rep-b", 16, "pico"), ("hinge", 1, "none")])
def test_simultaneous_updates_take_both_gradients_from_one_forward(name: str, scores: int, method: str, tmp_path: Path):
    before = Before(scores, method)
    losses = make_loss(name).both(*before.D(torch.cat([before.real, before.generate()])).chunk(2))
    line, state = step(tmp_path, "--loss", name, "--normalisation", method)
    assert_close(gradients(state, "generator"), by_backward(losses.generator, before.G))
    assert_close(gradients(state, "discriminator"), by_backward(losses.discriminator, before.D))
    expected = [losses.discriminator.item(), losses.generator.item()]
    assert_close([line["loss_discriminator"], line["loss_generator"]], expected)


def test_alternating_updates_show_the_generator_the_new_discriminator(tmp_path: Path):
    before = Before()
    with torch.no_grad():
        generated = before.generate()
    loss = before.D(generated).mean() - before.D(before.real).mean()
    expected_d = by_backward(loss, before.D)
    torch.optim.Adam(before.D.parameters(), 5e-4, (0.5, 0.999)).step()
    expected_g = by_backward(-before.D(before.generate()).mean(), before.G)
    options = ["--updates", "alternating", "--loss", "wasserstein", "--normalisation", "none"]
    _, state = step(tmp_path, *options)
    assert_close(gradients(state, "discriminator"), expected_d)
    assert_close(gradients(state, "generator"), expected_g)


class PlainRepulsion:
    """The repulsive loss with a Gaussian kernel, as it is written, in float64."""

    def both(self, real: Tensor, fake: Tensor) -> Losses:
        others = 1 - torch.eye(len(real), dtype=torch.float64)

        def mean(a: Tensor, b: Tensor) -> Tensor:
            values = torch.exp(-(a[:, None] - b).square().sum(2) / 2)
            return (values * others).sum() / others.sum()

        within_real, cross, within_fake = mean(real, real), mean(real, fake), mean(fake, fake)
        return Losses(within_real - within_fake, within_real - 2 * cross + within_fake)


@pytest.fixture
def _in_float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(loop, "centred", lambda pixels: pixels.double() / 127.5 - 1)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("_in_float64")
def test_a_loss_that_is_written_out_takes_the_same_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also to where the kernel saturates: real scores torn apart, and generated ones in one heap."""
    options = ["--loss", "mmd-rep", "--lr-discriminator", "1e-2", "--lr-generator", "5e-4", "--batch-size", str(BATCH)]
    options += ["--iterations", "30", "--log-every", "1"]
    ours = log(train(tmp_path / "ours", *options))
    monkeypatch.setattr(loop, "make_loss", lambda *args, **kwargs: PlainRepulsion())
    plain = log(train(tmp_path / "plain", *options))
    for line, expected in zip(ours, plain, strict=True):
        names = ("loss_discriminator", "loss_generator", "gradient_norm_discriminator", "gradient_norm_generator")
        assert [line[name] for name in names] == pytest.approx([expected[name] for name in names], rel=1e-6, abs=1e-9)
    assert ours[-1]["k_rr"] < 0.01
    assert ours[-1]["k_ff"] > 0.99


def test_the_penalty_divides_the_discriminators_loss_only(tmp_path: Path):
    before = Before()
    images = torch.cat([before.real, before.generate()]).detach().requires_grad_()
    scores = before.D(images)
    losses = make_loss("mmd-rep").both(real=scores[:BATCH], fake=scores[BATCH:])
    (jacobian,) = torch.autograd.grad(scores[:BATCH].sum(), images, create_graph=True)
    expected = (losses.discriminator - 1) / (1 + 0.1 * jacobian.square().sum() / BATCH)
    line, state = step(tmp_path, "--loss", "mmd-rep", "--gradient-penalty", "0.1")
    assert_close(
        [line["loss_discriminator"], line["loss_generator"]],
        [expected.item(), losses.generator.item()],
        rtol=1e-5,
        atol=1e-6,
    )
    assert_close(gradients(state, "discriminator"), by_backward(expected, before.D))


def test_scaled_mmd_takes_the_gradient_at_the_real_images(tmp_path: Path):
    before = Before()
    real = before.real.requires_grad_()
    scores = before.D(real)
    (jacobian,) = torch.autograd.grad(scores.sum(), real, create_graph=True)
    mmd = MMDLoss(RBFKernel(), estimator="u_statistic").both(real=scores, fake=before.D(before.generate())).generator
    scale = 1 / (1 + 10 * jacobian.square().sum() / BATCH)
    line, state = step(tmp_path, "--loss", "smmd")
    assert line["loss_discriminator"] == pytest.approx((-scale * mmd).item())
    assert_close(gradients(state, "discriminator"), by_backward(-scale * mmd, before.D))
    assert_close(gradients(state, "generator"), by_backward(scale.detach() * mmd, before.G))


def test_both_networks_learn_by_adam_with_their_own_rates(tmp_path: Path):
    before = Before(16)
    rates = ["--lr-discriminator", "0.25", "--lr-generator", "0.125"]
    _, state = step(tmp_path, "--normalisation", "none", *rates)
    # The first step of Adam is the learning rate, whatever the gradient.
    for name, network, rate in (("discriminator", before.D, 0.25), ("generator", before.G, 0.125)):
        (group,) = state[f"adam_{name}"]["param_groups"]
        assert (group["lr"], *group["betas"], group["eps"]) == (rate, 0.5, 0.999, 1e-8)
        steps = [(state[name][key] - old).abs().max() for key, old in network.named_parameters()]
        assert max(steps).item() == pytest.approx(rate, rel=1e-3)


def test_the_average_moves_by_its_decay_and_copies_the_statistics():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = MovingAverage(network, 0.5)
    for update in range(12):
        for parameter in network.parameters():
            parameter.data.normal_()
        network(torch.randn(3, 2))
        before = copy.deepcopy(list(average.module.parameters()))
        average.update_parameters(network)
        decay = min(0.5, (1 + update) / (10 + update)) if update else 0
        for old, new, current in zip(before, average.module.parameters(), network.parameters(), strict=True):
            assert_close(new, decay * old + (1 - decay) * current)
            assert not new.requires_grad
    for mean, current in zip(average.module.buffers(), network.buffers(), strict=True):
        assert torch.equal(mean, current)
    assert not average.module.training
    noise = torch.randn(9, 2)
    assert_close(average(noise)[7:], average(noise[7:]))  # samples do not depend on each other


def test_bf16_keeps_weights_gradients_and_losses_in_float32_and_is_near_float32(tmp_path: Path):
    found = {each: step(tmp_path / each, "--precision", each) for each in ("32-true", "bf16-mixed")}
    (single, _), (half, state) = found.values()
    assert single["loss_generator"] != half["loss_generator"]
    # bfloat16 has 8 bits.
    assert_close(half["loss_generator"], single["loss_generator"], rtol=0.1, atol=1e-2)
    kept = [*state["generator"].values(), *gradients(state, "generator"), *state["average"].values()]
    assert {tensor.dtype for tensor in kept if tensor.is_floating_point()} == {torch.float32}


# Comparisons with other trainings


def test_a_training_stops_after_cpu_seconds_and_goes_on_with_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seconds = iter(range(1000))
    monkeypatch.setattr(clock.time, "process_time", lambda: next(seconds))  # each iteration takes a second
    words = ("--log-every", "100", "--checkpoint-every", "100")
    folder = train(tmp_path / "run", *words, "--cpu-seconds", "3")
    assert last_state(folder)["iteration"] == 3
    assert (folder / "samples" / "iteration-00000003.png").exists()
    train(folder, *words, "--cpu-seconds", "4.5", "--resume", "auto")
    assert [line["cpu_seconds"] for line in log(folder)] == [1, 3, 5]  # the first and the last of each time
    whole = train(tmp_path / "whole", *words, "--iterations", "5")
    assert_close(last_state(folder)["generator"], last_state(whole)["generator"], rtol=0, atol=0)


def test_the_generator_can_be_that_of_the_trainings_without_a_discriminator(tmp_path: Path):
    _, state = step(tmp_path, "--one-step-width", "4")
    expected = one_step.make_generator(32, inputs=128, channels=3, width=4, norm="batch").state_dict()
    found = {name: value.shape for name, value in state["generator"].items()}
    assert found == {name: value.shape for name, value in expected.items()}
    drawn = loop.sampler(state["configuration"])
    drawn.generator.load_state_dict(averaged(state))
    assert drawn.generator(drawn.noise(2, torch.Generator())).shape == (2, 3, 32, 32)
