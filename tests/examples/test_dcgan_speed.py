"""Layouts and compilation: the same training but for rounding, and checkpoints that fit either way."""

from __future__ import annotations

from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from dcgan.configuration import Configuration, resolved
from dcgan.gan import GAN
from dcgan.losses import SINGLE_SCORE
from test_dcgan_training import last_state, log, train
from torch import Tensor, nn
from torch.testing import assert_close

# Dynamo looks for the gradient of the generated images, which are no leaf.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")

REAL = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(5)) * 2 - 1


def make(**settings: Any) -> GAN:
    torch.manual_seed(0)
    return GAN(resolved(Configuration(dataset="fake", width=4, batch_size=6, device="cpu", **settings)))


@pytest.fixture
def _without_code_generation(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Trace as torch.compile does, but leave out the minutes that generating code takes.

    With the backend "aot_eager" backward passes are traced too.
    """
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=getattr(request, "param", "eager")))
    torch.compiler.reset()


def layouts(gan: GAN) -> list[bool]:
    """Return whether the images and the features that layers of several channels see are laid out by pixels."""
    seen: list[bool] = []

    def look(layer: nn.Module, args: tuple[Tensor], out: Tensor) -> None:
        (x,) = args
        if x.shape[1] > 1 and x.shape[2] > 1:
            seen.append(x.is_contiguous(memory_format=torch.channels_last))

    for network in (gan.generator, gan.discriminator):
        for layer in network:
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(look)
    gan.step(REAL)
    return seen


@pytest.mark.parametrize("channels_last", [False, True])
def test_channels_last_is_how_the_convolutions_see_images(channels_last: bool):
    assert set(layouts(make(channels_last=channels_last))) == {channels_last}


@pytest.mark.parametrize("settings", [{}, {"updates": "alternating"}, {"loss": "hinge", "precision": "bfloat16"}])
def test_channels_last_changes_rounding_only(settings: dict[str, Any]):
    plain, laid_out = make(**settings), make(channels_last=True, **settings)
    steps = [gan.step(REAL) for gan in (plain, laid_out)]
    tolerance = 1e-2 if "precision" in settings else 1e-5
    assert_close(steps[0][:2], steps[1][:2], rtol=tolerance, atol=tolerance)


@pytest.mark.slow
@pytest.mark.usefixtures("_without_code_generation")
@pytest.mark.parametrize(
    ("_without_code_generation", "settings"),
    [("aot_eager", {}), ("eager", {"updates": "alternating", "loss": "hinge", "precision": "bfloat16"})],
    indirect=["_without_code_generation"],
)
def test_compiled_networks_train_alike_but_for_rounding(settings: dict[str, Any]):
    plain, compiled = make(**settings), make(compile=True, **settings)
    # The norms of compiled layers iterate in every forward, and not only where the weight has changed.
    tolerance = 1e-2
    for _ in range(2):
        steps = [gan.step(REAL) for gan in (plain, compiled)]
        assert_close(steps[0][:2], steps[1][:2], rtol=tolerance, atol=tolerance)


@pytest.mark.slow
@pytest.mark.usefixtures("_without_code_generation")
def test_a_run_may_go_on_with_and_without_compilation(tmp_path: Path):
    short = ["--checkpoint-every", "2", "--log-every", "1"]
    whole = train(tmp_path / "whole", *short, "--iterations", "6")
    parts = train(tmp_path / "parts", *short, "--iterations", "2", "--compile")
    assert last_state(parts)["discriminator"].keys() == last_state(whole)["discriminator"].keys()
    train(parts, *short, "--iterations", "4", "--resume", "auto", "--channels-last", "--workers", "0")
    train(parts, *short, "--iterations", "6", "--resume", "auto", "--compile", "--workers", "2")
    for ours, theirs in zip(log(parts), log(whole), strict=True):
        assert ours["loss_generator"] == pytest.approx(theirs["loss_generator"], rel=0.05, abs=0.02)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("precision", "loss", "options"),
    [
        *product(("float32", "bfloat16", "float16"), ("mmd-rep-b", "hinge"), ([], ["--channels-last"])),
        # The first compilations of a run take most of a minute.
        *product(("float32", "bfloat16"), ("mmd-rep-b",), (["--channels-last", "--compile"],)),
    ],
)
def test_a_gpu_trains_and_goes_on(precision: str, loss: str, options: list[str], tmp_path: Path, gpu: torch.device):
    chosen = [*options, "--device", str(gpu), "--precision", precision, "--loss", loss, "--width", "8"]
    short = [*chosen, "--checkpoint-every", "5", "--log-every", "1", "--workers", "2"]
    folder = train(tmp_path / "run", *short, "--iterations", "5")
    train(folder, *short, "--iterations", "20", "--resume", "auto")
    lines = log(folder)
    assert [line["iteration"] for line in lines] == list(range(1, 21))
    assert ("scale_generator" in lines[0]) == (precision == "float16")
    # Most updates are made, whatever the first scale is.
    assert sum(line["gradient_norm_generator"] is not None for line in lines) >= 10
    steps = last_state(folder)["adam_generator"]["state"][0]["step"]
    assert steps >= 10


@pytest.mark.gpu
@pytest.mark.parametrize("loss", [*SINGLE_SCORE, "mmd-rep-b"])
def test_a_gpu_does_what_a_cpu_does(loss: str, gpu: torch.device):
    settings = {"dataset": "fake", "width": 8, "batch_size": 6, "loss": loss}
    found = []
    for device in ("cpu", str(gpu)):
        torch.manual_seed(0)
        gan = GAN(resolved(Configuration(device=device, **settings)))
        noise = torch.randn(6, 128, generator=torch.Generator().manual_seed(1)).to(gan.device)
        gan.noise = lambda count, noise=noise: noise  # each kind of device has random numbers of its own
        found.append([loss.cpu() for loss in gan.step(REAL.to(gan.device))[:2]])
    # Convolutions use TF32 on a GPU by default.
    assert_close(found[0], found[1], rtol=1e-2, atol=1e-2)
