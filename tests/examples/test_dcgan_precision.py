"""Half precision by autocast: who computes in what, and what an overflow does to an update and to the run."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import pytest
import torch
from dcgan.configuration import Configuration, resolved
from dcgan.gan import GAN, Step
from dcgan.precision import SMALLEST_SCALE
from dcgan.record import NotFiniteError, health
from test_dcgan_training import assert_same_run, log, train
from torch import Tensor, nn
from torch.testing import assert_close

REAL = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(5)) * 2 - 1
HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def make(precision: str, **settings: object) -> GAN:
    torch.manual_seed(0)
    fixed = {"dataset": "fake", "width": 2, "batch_size": 6, "device": "cpu", "precision": precision}
    return GAN(resolved(Configuration(**fixed, **settings)))


def weights(network: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def overflow(gan: GAN, name: str) -> None:
    """Raise the scale of a loss until its gradient overflows."""
    scaler = {"discriminator": gan.learner_d, "generator": gan.learner_g}[name].scaler
    scaler.load_state_dict({**scaler.state_dict(), "scale": 2.0**80})


@pytest.mark.parametrize("precision", HALVES)
def test_layers_compute_in_half_precision_and_all_else_in_float32(precision: str):
    gan = make(precision)
    seen: dict[str, set[torch.dtype]] = {"generator": set(), "discriminator": set()}
    for name, dtypes in seen.items():
        for layer in getattr(gan, name):
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                layer.register_forward_hook(lambda layer, args, out, dtypes=dtypes: dtypes.add(out.dtype))
    step = gan.step(REAL)
    assert seen == {"generator": {HALVES[precision]}, "discriminator": {HALVES[precision]}}
    assert step.loss_discriminator.dtype == step.loss_generator.dtype == torch.float32
    held = [*gan.generator.parameters(), *gan.discriminator.parameters()]
    held += [parameter.grad for parameter in held if parameter.grad is not None]
    held += [buffer for buffer in gan.discriminator.buffers() if buffer.is_floating_point()]
    assert {tensor.dtype for tensor in held} == {torch.float32}
    assert gan.sample(gan.noise(2)).dtype == torch.float32


@pytest.mark.parametrize("settings", [{}, {"updates": "alternating"}, {"loss": "mmd-rep", "gradient_penalty": 0.1}])
@pytest.mark.parametrize("precision", HALVES)
def test_gradients_are_those_of_float32_but_for_rounding(precision: str, settings: dict[str, object]):
    half, single = make(precision, **settings), make("float32", **settings)
    steps = [gan.step(REAL) for gan in (half, single)]
    # bfloat16 has 8 bits, float16 11. Rounding adds up over the layers and turns rectifiers over, of which networks
    # of width 2 have few: gradients were up to 0.24 and 0.08 away, the losses 1e-4.
    tolerance = {"bfloat16": 0.3, "float16": 0.1}[precision]
    assert_close(steps[0][:2], steps[1][:2], rtol=0, atol=1e-3)
    for name in ("generator", "discriminator"):
        ours, theirs = (
            torch.cat([parameter.grad.flatten() for parameter in getattr(gan, name).parameters()])
            for gan in (half, single)
        )
        assert (ours - theirs).norm() < tolerance * theirs.norm()


@pytest.mark.parametrize("updates", ["simultaneous", "alternating"])
@pytest.mark.parametrize("name", ["discriminator", "generator"])
def test_an_overflow_leaves_out_that_networks_update_only(name: str, updates: str):
    gan = make("float16", updates=updates)
    gan.step(REAL)
    overflow(gan, name)
    before = copy.deepcopy(gan)
    step = gan.step(REAL)
    for each, learner in (("discriminator", gan.learner_d), ("generator", gan.learner_g)):
        pairs = zip(getattr(gan, each).parameters(), getattr(before, each).parameters(), strict=True)
        assert all(torch.equal(*pair) for pair in pairs) == (each == name)
        count = next(iter(learner.optimiser.state.values()))["step"].item()
        assert count == (1 if each == name else 2)
    line = health(gan, step)
    assert line[f"gradient_norm_{name}"] is None
    assert line[f"scale_{name}"] == 2.0**79
    assert sum(value is None for value in line.values()) == 1


@pytest.mark.parametrize("name", ["discriminator", "generator"])
def test_the_scale_falls_until_training_goes_on(name: str):
    gan = make("float16")
    overflow(gan, name)
    network = getattr(gan, name)
    before = weights(network)
    scales = itertools.takewhile(
        lambda norm: norm is None, (health(gan, gan.step(REAL))[f"gradient_norm_{name}"] for _ in range(100))
    )
    assert len(list(scales)) > 50
    assert not all(map(torch.equal, before, weights(network)))


@pytest.mark.parametrize("name", ["discriminator", "generator"])
def test_a_scale_that_has_fallen_to_nothing_stops_the_run(name: str):
    gan = make("float16")
    step = gan.step(REAL)
    learner = {"discriminator": gan.learner_d, "generator": gan.learner_g}[name]
    next(getattr(gan, name).parameters()).grad.fill_(torch.inf)
    learner.scaler.load_state_dict({**learner.scaler.state_dict(), "scale": SMALLEST_SCALE})
    assert health(gan, step)[f"gradient_norm_{name}"] is None
    learner.scaler.load_state_dict({**learner.scaler.state_dict(), "scale": SMALLEST_SCALE / 2})
    with pytest.raises(NotFiniteError, match=f"where gradient_norm_{name} is inf.*--precision float32"):
        health(gan, step)


def test_the_31st_overflow_in_a_row_from_the_start_stops_the_run():
    gan = make("float16")
    gan.generator[0].bias.register_hook(lambda gradient: gradient * torch.inf)
    for _ in range(30):
        health(gan, gan.step(REAL))
    step = gan.step(REAL)
    with pytest.raises(NotFiniteError, match="gradient_norm_generator is"):
        health(gan, step)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_without_a_scale_every_overflow_stops_the_run(precision: str):
    gan = make(precision)
    step = gan.step(REAL)
    gan.generator[0].bias.grad.fill_(torch.inf)
    with pytest.raises(NotFiniteError, match="gradient_norm_generator is inf") as stopped:
        health(gan, step)
    assert ("--precision" in str(stopped.value)) == (precision != "float32")


def test_a_loss_that_is_no_number_stops_the_run_in_float16_too():
    gan = make("float16")
    step: Step = gan.step(REAL)
    with pytest.raises(NotFiniteError, match="loss_generator is nan"):
        health(gan, step._replace(loss_generator=torch.tensor(torch.nan)))


@pytest.mark.parametrize("name", ["discriminator", "generator"])
def test_scales_are_part_of_the_state(name: str):
    gan, resumed = make("float16"), make("float16")
    overflow(gan, name)
    gan.step(REAL)
    resumed.load_state_dict(copy.deepcopy(gan.state_dict()))
    for going_on in (gan, resumed):
        going_on.step(REAL)
    assert health(gan, gan.step(REAL)) == health(resumed, resumed.step(REAL))


@pytest.mark.parametrize("precision", HALVES)
def test_a_run_in_half_precision_goes_on_bit_for_bit(precision: str, tmp_path: Path):
    short = ["--precision", precision, "--checkpoint-every", "2", "--log-every", "1", "--sample-every", "2"]
    whole = train(tmp_path / "whole", *short, "--iterations", "4")
    parts = train(tmp_path / "parts", *short, "--iterations", "2")
    train(parts, *short, "--iterations", "4", "--resume", "auto")
    assert_same_run(whole, parts)
    assert ("scale_generator" in log(whole)[0]) == (precision == "float16")
