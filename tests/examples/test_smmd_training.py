"""Whole runs of the scripts of Arbel et al.: what they leave behind, and how they go on, and judge themselves."""

from __future__ import annotations

import importlib
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import smmd_spectra
import torch
from dcgan import checkpoints, record
from dcgan import script as dcgan_script
from dcgan.processes import ALONE, Group, joined
from evaluation import comparison, images
from PIL import Image
from processes import start
from smmd import script
from smmd.configuration import Configuration, resolved
from smmd.experiment import ARBEL
from smmd.gan import GAN
from smmd.judge import Judge, make_judge
from smmd.presets import DATASETS, METHODS
from smmd.sources import CELEBA_MARGIN
from test_dcgan_processes import JOIN, WORLD, meeting_point
from test_dcgan_training import assert_equal, last_state
from torch import Tensor
from torch.testing import assert_close

CPU = torch.device("cpu")
POOLING = """
from torch import nn

def load():
    return nn.Sequential(nn.AvgPool2d(4), nn.Flatten())
"""


def train(folder: Path, *options: str, method: str = "sn-smmd") -> Path:
    """Run the smallest training, on generated images."""
    common = ["--out", str(folder), "--quiet", "--device", "cpu", "--method", method]
    return script.main("fake", "Train.", [*common, *options])


def log(folder: Path, name: str = "log") -> list[dict[str, Any]]:
    """Read a log of a run but the speed."""
    return [{**line, "iterations_per_second": 0} for line in record.read_log(folder / f"{name}.jsonl")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("runs") / "finished")


@pytest.fixture(scope="module")
def pooling(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the path of a network whose features are means of neighbouring pixels."""
    path = tmp_path_factory.mktemp("features") / "pooling.py"
    path.write_text(POOLING, encoding="utf-8")
    return str(path)


@pytest.fixture
def judged(pooling: str) -> list[str]:
    """Return options of a run that judges itself every second iteration."""
    return ["--kid-features", pooling, "--kid-images", "16", "--kid-every", "2", "--kid-back", "4"]


# What a run is


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dataset", DATASETS)
def test_each_preset_trains_on_fake_data_of_its_real_shape(dataset: str, method: str, tmp_path: Path):
    module = importlib.import_module(f"smmd_{dataset}")
    reduced = ["--dataset", "fake", "--width", "1", "--batch-size", "2", "--critic-steps", "1", "--iterations", "4"]
    options = [*reduced, "--method", method, "--quiet", "--device", "cpu", "--out", str(tmp_path / "run")]
    folder = module.main(options)
    assert log(folder)[-1]["iteration"] == 4
    with Image.open(folder / "samples" / "iteration-00000004.png") as sheet:
        assert sheet.size == (8 * (DATASETS[dataset]["size"] + 4),) * 2


def test_the_script_of_fashion_mnist_trains_reduced_networks(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    module = importlib.import_module("smmd_fashion_mnist")
    module.main(["--dry-run", "--method", "smmd"])
    chosen = json.loads(capsys.readouterr().out)
    assert (chosen["dataset"], chosen["channels"], chosen["width"], chosen["normalisation"]) == (
        "fashion-mnist",
        1,
        8,
        "none",
    )


def test_a_run_leaves_its_configuration_two_logs_samples_and_checkpoints(finished: Path):
    files = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    assert files == {
        "configuration.json",
        "log.jsonl",
        "singular_values.jsonl",
        "training.lock",
        *(f"samples/iteration-{iteration:08d}.png" for iteration in (0, 10, 20)),
        *(f"checkpoints/iteration-{iteration:08d}.pt" for iteration in (10, 20)),
    }
    assert [line["iteration"] for line in log(finished)] == [1, 5, 10, 15, 20]
    spectra = log(finished, "singular_values")
    assert [line["iteration"] for line in spectra] == [1, 10, 20]
    for line in spectra:
        assert len(line["singular_values"]) == 8
        assert all(values[0] > 0 for values in line["singular_values"].values())


def test_a_run_without_a_judge_keeps_its_learning_rates(finished: Path):
    for line in log(finished):
        assert line["lr_discriminator"] == line["lr_generator"] == 1e-4
        assert "kid_p_value" not in line


@pytest.mark.parametrize("method", METHODS)
def test_the_method_decides_what_the_options_start_from(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    train(tmp_path / "run", "--dry-run", method=method)
    chosen = json.loads(capsys.readouterr().out)
    assert {name: chosen[name] for name in METHODS[method]} == METHODS[method]
    assert not (tmp_path / "run").exists()


def test_the_folder_is_named_after_data_and_method_unless_chosen():
    assert script.main("celeba", "Train.", ["--dry-run", "--method", "swgan"]) == Path("runs/smmd-celeba-swgan")


def test_the_singular_values_of_a_run_are_drawn(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = smmd_spectra.main([str(finished), "--out", str(tmp_path / "picture.png")])
    with Image.open(out) as picture:
        assert picture.width > 500
    assert str(out) in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        smmd_spectra.main([str(tmp_path)])
    assert f"there are no singular values in {tmp_path}" in capsys.readouterr().err


# Going on


@pytest.mark.parametrize("method", ["sn-smmd", "wgan-gp", "sobolev-gan"])
def test_a_run_that_went_on_is_that_which_was_never_stopped(
    method: str, judged: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    options = [*judged, "--kid-failures", "1", "--log-every", "1", "--spectrum-every", "3"]
    whole = train(tmp_path / "whole", *options, "--iterations", "11", method=method)
    parts = train(tmp_path / "parts", *options, "--iterations", "7", method=method)
    train(parts, *options, "--iterations", "11", "--resume", "auto", method=method)
    assert_equal(last_state(whole), last_state(parts))
    # What the last test came to is not part of a checkpoint, and is in the log again after the next one.
    measured = [[{**line, "kid_p_value": 0, "kid_failures": 0} for line in log(run)] for run in (whole, parts)]
    assert measured[0] == measured[1]
    # The end of the shorter run was due there.
    expected = [line for line in log(parts, "singular_values") if line["iteration"] != 7]
    assert log(whole, "singular_values") == expected


def test_a_run_that_goes_back_drops_later_singular_values(finished: Path, tmp_path: Path):
    folder = shutil.copytree(finished, tmp_path / "run")
    chosen = folder / "checkpoints" / "iteration-00000010.pt"
    train(folder, "--resume", str(chosen), "--iterations", "15")
    assert [line["iteration"] for line in log(folder, "singular_values")] == [1, 10, 15]


# The learning rates


def test_learning_rates_fall_when_samples_do_not_improve(judged: list[str], tmp_path: Path):
    # A generator that hardly moves does not improve significantly but by chance.
    still = ["--lr-generator", "1e-12", "--lr-least", "1e-13", "--kid-failures", "2", "--lr-factor", "0.5"]
    folder = train(tmp_path / "run", *judged, *still, "--log-every", "1", "--iterations", "14", "--seed", "1")
    lines = log(folder)
    assert "kid_p_value" not in lines[0]
    # Two evaluations are remembered; each pair of failures from then on halves the rates, and keeps two.
    assert [line["kid_p_value"] is None for line in lines[1::2]] == [True, True, *[False] * 5]
    assert [line["lr_generator"] for line in lines[1::2]] == [1e-12] * 3 + [0.5e-12] * 2 + [0.25e-12] * 2
    assert [line["lr_discriminator"] for line in lines[1::2]] == [1e-4] * 3 + [0.5e-4] * 2 + [0.25e-4] * 2
    assert last_state(folder)["kid_schedule"]["failures"] == 1


def test_the_judge_compares_bytes_of_the_size_that_is_trained_with(pooling: str):
    chosen = resolved(Configuration(dataset="fake", kid_features=pooling, kid_images=16, device="cpu"))
    pixels = np.random.default_rng(0).integers(0, 256, (20, 3, 32, 32), np.uint8)
    judge = make_judge(chosen, pixels, CPU)
    assert judge is not None
    picked = np.sort(np.random.default_rng(0).permutation(20)[:16])
    assert_close(judge.real, judge.features(torch.from_numpy(pixels[picked]).float() / 127.5 - 1))
    assert judge.real.shape == (16, 192)


def test_no_judge_is_made_unless_asked_for():
    assert make_judge(resolved(Configuration(device="cpu")), np.empty((0, 3, 32, 32), np.uint8), CPU) is None


# Several processes


BLOCKS = {"dataset": "fake", "size": 8, "width": 2, "batch_size": 4, "device": "cpu", "normalisation": "none"}
CASES = {"smmd": {"loss": "smmd"}, "sobolev": {"loss": "sobolev", "sobolev_rho": 0.1}}
JUDGED = {"loss": "smmd", "kid_every": 1, "kid_back": 1, "kid_failures": 1, "lr_generator": 1e-12, "lr_least": 1e-13}


class InTurn(GAN):
    """In one process, the mean of the losses of the batches that two processes would have."""

    def _update_critic(self, real: Tensor) -> Tensor:
        parts = [part.detach() for part in self._parts_of_noise(len(real))]
        return self._mean(self.adam_d, self.discriminator, self.loss.critic_loss, real, parts)

    def _update_generator(self, real: Tensor) -> Tensor:
        parts = self._parts_of_noise(len(real))
        return self._mean(self.adam_g, self.generator, self.loss.generator_loss, real, parts)

    def _parts_of_noise(self, count: int) -> list[Tensor]:
        return [self.generator(part) for part in self.noise(count).chunk(WORLD)]

    def _mean(
        self,
        adam: torch.optim.Optimizer,
        network: torch.nn.Module,
        loss: Callable[..., Tensor],
        real: Tensor,
        fake: list[Tensor],
    ) -> Tensor:
        before = [buffer.clone() for buffer in self.loss.buffers()]
        values, after = [], []
        for ours, theirs in zip(real.chunk(WORLD), fake, strict=True):
            for buffer, value in zip(self.loss.buffers(), before, strict=True):
                buffer.data = value.clone()
            values.append(loss(self.discriminator, ours, theirs))
            after.append([buffer.clone() for buffer in self.loss.buffers()])
        self._update(adam, network, torch.stack(values).mean())
        for buffer, *found in zip(self.loss.buffers(), *after, strict=True):
            buffer.data = torch.stack(found).mean(0)
        return values[0]


def play(settings: dict[str, Any], group: Group, kind: type[GAN] = GAN, judge: Judge | None = None) -> dict[str, Any]:
    """Train three iterations in float64, and return the parameters, the state of the loss, and the next noise."""
    torch.manual_seed(0)
    gan = kind(resolved(Configuration(**(BLOCKS | settings))), group=group, judge=judge)
    for parameter in gan.discriminator.parameters():
        parameter.data.mul_(10)  # so that its gradient at the images is not lost beside 1
    source = torch.Generator().manual_seed(1)
    rows = group.rows(8)
    for _ in range(3):
        gan.step(lambda: torch.rand(8, 3, 8, 8, generator=source)[rows])
    networks = {"generator": gan.generator, "discriminator": gan.discriminator}
    found = {name: [p.detach() for p in network.parameters()] for name, network in networks.items()}
    found |= {"loss": list(gan.loss.buffers()), "noise": [gan.noise(2)]}
    return found if judge is None else {"state": gan.state_dict(), "outcome": gan.outcome}


def process(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    os.environ |= {**JOIN, "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank)}
    with joined("cpu") as group:
        found = {name: play(case, group) for name, case in CASES.items()}
        # Real features that differ in the last digits, as on two GPUs.
        # The generator's images may all be alike; features of single samples keep the test from being undefined.
        judge = Judge(
            lambda pixels: pixels.flatten(1).double() + 99 * torch.eye(len(pixels), 192),
            torch.eye(8, 192) * 255 + 1e-9 * rank,
        )
        judged = play(JUDGED, group, judge=judge)
        norms = ("running_mean", "running_var")  # of the processes' own batches
        judged["state"]["generator"] = {k: v for k, v in judged["state"]["generator"].items() if not k.endswith(norms)}
        torch.save(found | {"judged": {**judged, "outcome": tuple(judged["outcome"])}}, Path(folder) / f"{rank}.pt")


@pytest.mark.xdist_group("processes")
def test_two_processes_train_by_the_mean_of_their_own_losses(tmp_path: Path):
    store = meeting_point()
    start(process, WORLD, store.port, str(tmp_path))
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(WORLD))
    assert_equal(first, second)
    torch.set_default_dtype(torch.float64)
    try:
        for name, case in CASES.items():
            expected = play(case, ALONE, InTurn)
            for part, tensors in expected.items():
                assert_close(first[name][part], tensors, rtol=1e-7, atol=1e-9)
    finally:
        torch.set_default_dtype(torch.float32)
    assert first["sobolev"]["loss"][0] != 0
    assert 0 < first["judged"]["outcome"][0] < 1


# What evaluation sees


def test_the_evaluation_draws_as_the_run_does(finished: Path):
    found = images.find(finished)
    drawn = images.generate(found, "averaged", 7, 5, 2, CPU)
    gan = GAN(resolved(found.configuration))
    gan.load_state_dict(found.state)
    noise = torch.rand(5, 128, generator=torch.Generator().manual_seed(7)) * 2 - 1
    expected = gan.sample(noise).add(1).mul(127.5).round().byte().numpy()
    assert np.abs(drawn.astype(int) - expected).max() <= 1  # batches of other sizes round otherwise
    assert drawn.std() > 0
    compared = comparison.generated(found, None, weights="averaged", split="test", seed=0)
    assert compared.real.take(3).shape == (3, 3, 32, 32)


def test_checkpoints_of_unknown_experiments_are_not_measured(tmp_path: Path):
    checkpoints.Checkpoints(tmp_path / "checkpoints").save(1, {"experiment": "biggan"})
    with pytest.raises(ValueError, match="run: expected a checkpoint of dcgan or smmd, got one of biggan"):
        images.find(tmp_path)


def test_images_of_celeba_are_compared_without_their_margin(tmp_path: Path):
    size = 160 + 2 * CELEBA_MARGIN
    stored = np.arange(2 * 3 * size * size, dtype=np.uint8).reshape(2, 3, size, size)
    (tmp_path / "prepared").mkdir()
    np.save(tmp_path / "prepared" / f"smmd-celeba-3x{size}x{size}.npy", stored)
    chosen = Configuration(dataset="celeba", size=160, family="dcgan5")
    real = ARBEL.real(chosen, tmp_path, "train", print)
    assert np.array_equal(real, stored[:, :, CELEBA_MARGIN:-CELEBA_MARGIN, CELEBA_MARGIN:-CELEBA_MARGIN])
    with pytest.raises(ValueError, match="split: celeba has no test split"):
        ARBEL.real(chosen, tmp_path, "test", print)


# What is refused


def refusal(capsys: pytest.CaptureFixture[str], folder: Path, *options: str, method: str = "sn-smmd") -> str:
    with pytest.raises(SystemExit, match="2"):
        train(folder, *options, method=method)
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "dcgan"], "argument --method: invalid choice: 'dcgan'"),
        (["--precision", "float16"], "unrecognized arguments: --precision float16"),
        (["--compile"], "unrecognized arguments: --compile"),
        (["--gradient-penalty", "1"], "gradient_penalty: expected 0 for smmd, got 1.0"),
        (["--kid-features", "nowhere.pt", "--kid-images", "16"], "features: expected inception or the path of a file"),
        (
            ["--kid-features", "POOLING", "--kid-images", "257"],
            "kid_images: expected at most the number",
        ),
        (["--kid-failures", "11"], "kid_failures: expected at most kid_back / kid_every, 10; got 11"),
    ],
)
def test_what_cannot_be_trained_is_explained(
    options: list[str], message: str, pooling: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    options = [pooling if option == "POOLING" else option for option in options]
    assert message in refusal(capsys, tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


def test_checkpoints_of_other_experiments_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    other = tmp_path / "dcgan"
    dcgan_script.main("fake", "Train.", ["--out", str(other), "--quiet", "--device", "cpu", "--iterations", "1"])
    path = str(checkpoints.Checkpoints(other / "checkpoints").paths()[0])
    message = refusal(capsys, tmp_path / "run", "--resume", path)
    assert f"The checkpoint is of the experiment 'dcgan', expected 'smmd' ({path})" in message


def test_a_changed_method_is_refused(finished: Path, capsys: pytest.CaptureFixture[str]):
    message = refusal(capsys, finished, "--resume", "auto", "--iterations", "21", method="smmd")
    assert "normalisation was 'matrix' and is 'none'" in message


def test_training_that_breaks_down_stops_with_advice(tmp_path: Path):
    with pytest.raises(SystemExit, match=r"Stopped at iteration \d+, where \w+ is .*--gradient-penalty .*--seed"):
        train(tmp_path / "run", "--lr-discriminator", "1e37", "--clip-norm", "0", method="wgan-gp")


def test_rates_of_a_forced_run_are_those_of_the_checkpoint(finished: Path, tmp_path: Path):
    chosen = finished / "checkpoints" / "iteration-00000010.pt"
    folder = train(tmp_path / "run", "--resume", str(chosen), "--force", "--lr-generator", "0.5", "--iterations", "11")
    assert math.isclose(last_state(folder)["adam_generator"]["param_groups"][0]["lr"], 1e-4)
