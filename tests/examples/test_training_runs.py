"""Whole runs: what they leave behind, that they go on as if never interrupted, and what is refused."""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.testing import assert_close
from trained import SHORT, assert_equal, assert_same_run, last_state, log, newest, refusal, train
from training import batches as batches_module
from training import checkpoints, images
from training.files import read_lines
from wang2019 import train as loop

EXAMPLES = Path(__file__).parents[2] / "examples"
SIZES = {"cifar10": 32, "stl10": 48, "celeba": 64, "lsun": 64, "fashion_mnist": 32, "fake": 32}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("runs") / "finished")


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def during(monkeypatch: pytest.MonkeyPatch, iteration: int, happen: Callable[[Tensor], object]) -> None:
    """Let something happen to the real images of an iteration, the first of which is 1."""
    count = 0
    centred = batches_module.centred

    def stumbling(pixels: Tensor) -> Tensor:
        nonlocal count
        count += 1
        real = centred(pixels)
        if count == iteration:
            happen(real)
        return real

    monkeypatch.setattr(loop, "centred", stumbling)


# What a run is


@pytest.mark.parametrize("name", SIZES)
def test_each_script_trains_on_fake_data_of_its_real_shape(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    script = importlib.import_module(f"dcgan_{name}")
    reduced = ["--dataset", "fake", "--width", "2", "--batch-size", "4", "--iterations", "2", "--device", "cpu"]
    options = [*reduced, "--out", str(tmp_path / "run"), "--workers", "0"]
    folder = script.script(name.replace("_", "-"), "Train.", options)
    first, last, where = capsys.readouterr().out.splitlines()
    assert first.startswith("iteration 1 of 2: loss_discriminator ")
    assert last.startswith("iteration 2 of 2: loss_discriminator ")
    assert str(folder) in where
    with Image.open(folder / "samples" / "iteration-00000002.png") as sheet:
        assert sheet.size == (8 * (SIZES[name] + 4),) * 2
        assert sheet.mode == ("L" if name == "fashion_mnist" else "RGB")


def test_a_run_leaves_its_configuration_a_log_samples_and_two_checkpoints(finished: Path):
    files = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    assert files == {
        *("configuration.json", "log.jsonl", "training.lock"),
        *(f"samples/iteration-{iteration:08d}.png" for iteration in (0, 10, 20)),
        *(f"checkpoints/iteration-{iteration:08d}.pt" for iteration in (10, 20)),
    }
    written = json.loads((finished / "configuration.json").read_text(encoding="utf-8"))
    assert (written["dataset"], written["scores"], written["lambda_"]) == ("fake", 16, 1)
    assert written == last_state(finished)["configuration"]


def test_the_log_has_losses_kernel_means_gradient_norms_and_spectral_norms(finished: Path):
    lines = read_lines(finished / "log.jsonl")
    assert [line["iteration"] for line in lines] == [1, 5, 10, 15, 20]
    for line in lines:
        # The generator's loss is made of the means of the unbounded kernel.
        assert line["loss_generator"] == pytest.approx(line["k_rr"] - 2 * line["k_rf"] + line["k_ff"], abs=1e-5)
        assert len(line["sigma"]) == 8
        assert min(line["gradient_norm_discriminator"], line["gradient_norm_generator"], *line["sigma"].values()) > 0
        assert line["iterations_per_second"] > 0


def test_milestones_stay_whatever_else_is_saved(tmp_path: Path):
    folder = train(tmp_path / "run", "--checkpoint-every", "4", "--keep-every", "3", "--iterations", "10")
    kept = [checkpoints.iteration_of(path) for path in checkpoints.newest_first(folder / "checkpoints")]
    assert kept == [10, 9, 6, 3]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_seed_decides_a_run(seed: int, finished: Path, tmp_path: Path):
    again = train(tmp_path / "again", "--seed", str(seed))
    assert (log(again) == log(finished)) is (seed == 0)


# Going on


@pytest.mark.parametrize(
    "options",
    [
        ["--loss", "hinge", "--precision", "bf16-mixed"],
        ["--normalisation", "matrix", "--updates", "alternating", "--loss", "mmd-rq", "--channels-last"],
        ["--gradient-penalty", "0.1", "--loss", "mmd-rep"],
        ["--loss", "smmd", "--updates", "alternating"],
    ],
)
def test_all_ways_to_train_run_and_go_on_bit_for_bit(options: list[str], tmp_path: Path):
    whole = train(tmp_path / "whole", *options, *SHORT, "--iterations", "4")
    parts = train(tmp_path / "parts", *options, *SHORT, "--iterations", "2")
    train(parts, *options, *SHORT, "--iterations", "4", "--resume", "auto")
    assert_same_run(whole, parts)
    assert ("k_rr" in log(whole)[0]) == ("hinge" not in options)
    assert ("sigma" in log(whole)[0]) == (not {"--gradient-penalty", "smmd"} & set(options))


def test_the_same_command_with_resume_auto_starts_goes_on_and_is_at_its_end(finished: Path, tmp_path: Path):
    folder = tmp_path / "run"
    train(folder, "--iterations", "13")  # which logs and draws its end too
    for _ in range(2):
        train(folder, "--resume", "auto")
        state, expected = last_state(folder), last_state(finished)
        assert_equal(state | {"configuration": 0}, expected | {"configuration": 0})
    train(folder, "--resume", "auto", "--iterations", "3")  # at its end long ago
    assert last_state(folder)["iteration"] == 20
    train(tmp_path / "new", "--resume", "auto")
    assert_same_run(finished, tmp_path / "new")


def test_a_run_may_go_on_from_a_chosen_checkpoint_here_and_elsewhere(finished: Path, run: Path, tmp_path: Path):
    chosen = tmp_path / "kept.pt"
    shutil.copy(finished / "checkpoints" / "iteration-00000010.pt", chosen)
    folder = train(tmp_path / "other", "--resume", str(chosen))
    assert_equal(last_state(folder), last_state(finished))
    assert [line["iteration"] for line in log(folder)] == [15, 20]
    here = run / "checkpoints" / "iteration-00000010.pt"
    train(run, "--resume", str(here), "--checkpoint-every", "5", "--iterations", "15")
    assert checkpoints.iteration_of(newest(run)) == 15
    assert [line["iteration"] for line in log(run)] == [1, 5, 10, 15]


def kill_after(seconds: float, folder: Path, *options: str, meanwhile: Callable[[], object] = list) -> bool:
    """Run the script by its command, kill it some time after it has begun to train, and return whether it lived."""
    command = [sys.executable, str(EXAMPLES / "dcgan_fake.py"), "--out", str(folder), "--quiet", "--device", "cpu"]
    path = os.pathsep.join([str(EXAMPLES.parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    begun = folder / "configuration.json"
    before = begun.stat().st_mtime_ns if begun.exists() else None
    with subprocess.Popen([*command, "--resume", "auto", *options], env=environment) as process:
        while process.poll() is None and (not begun.exists() or begun.stat().st_mtime_ns == before):
            time.sleep(0.005)
        meanwhile()
        time.sleep(seconds)
        lived = process.poll() is None
        process.kill()
    return lived


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_a_run_that_is_killed_at_random_moments_ends_as_if_it_was_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    options = ["--iterations", "100", "--checkpoint-every", "3", "--updates", "alternating", "--loss", "mmd-rep"]
    whole, folder = train(tmp_path / "whole", *options), tmp_path / "run"
    moments = random.Random(os.getpid())

    def train_beside_it() -> None:
        message = refusal(capsys, lambda: train(folder, *options, "--resume", "auto"))
        assert f"{folder} is in use by another training" in message

    # A killed process leaves its lock, also while the workers that it had still live.
    killed = [kill_after(0, folder, *options, "--workers", "1", meanwhile=train_beside_it)]
    killed += [kill_after(moments.uniform(0, 1), folder, *options)]
    train(folder, *options, "--resume", "auto")
    assert killed[0]
    assert_same_run(whole, folder)


def test_a_process_that_is_killed_while_it_saves_leaves_no_half_checkpoint(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, save = tmp_path / "run", torch.save

    def half(state: dict[str, object], path: Path) -> None:
        if state["iteration"] == 20:
            path.write_bytes(b"PK" * 1000)
            raise SystemError("as by SIGKILL")
        save(state, path)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half)
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(SystemError):
            train(folder)
    assert [path.name[:21] for path in sorted((folder / "checkpoints").iterdir())] == [
        "iteration-00000010.pt",
        "iteration-00000020.pt",
    ]
    train(folder, "--resume", "auto")
    assert_same_run(finished, folder)
    assert list(folder.rglob("*.partial")) == []


@pytest.fixture
def _usual_signals() -> Iterator[None]:
    """Handle signals as in a foreground process, however the tests were started."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler), signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, before[0])
    signal.signal(signal.SIGTERM, before[1])


@pytest.mark.usefixtures("_usual_signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_and_goes_on(
    number: signal.Signals,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    folder = tmp_path / "run"
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        during(patch, 7, lambda real: signal.raise_signal(number))
        message = refusal(capsys, lambda: train(folder), 128 + number)
    assert handlers == [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    assert "Interrupted after iteration 7; continue with the same options and --resume auto" in message
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["iteration-00000007.pt"]
    (folder / "samples" / "iteration-00000007.png").unlink()  # drawn at the interruption
    train(folder, "--resume", "auto")
    assert_same_run(finished, folder)


@pytest.mark.usefixtures("_usual_signals")
def test_a_second_signal_stops_at_once_and_an_ignored_one_stays_ignored(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def twice(_: Tensor) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    during(monkeypatch, 3, twice)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run")
    monkeypatch.undo()
    during(monkeypatch, 3, twice)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert_same_run(finished, train(tmp_path / "other"))


# What is refused


def test_a_changed_configuration_is_refused_unless_forced(run: Path, capsys: pytest.CaptureFixture[str]):
    changed = ["--resume", "auto", "--iterations", "22", "--lr-generator", "0.5", "--loss", "mmd-rep"]
    message = refusal(capsys, lambda: train(run, *changed))
    assert "loss was 'mmd-rep-b' and is 'mmd-rep'; lr_generator was 0.0002 and is 0.5. Choose" in message
    assert last_state(run)["iteration"] == 20
    train(run, *changed, "--force")
    state = last_state(run)
    assert state["iteration"] == 22
    assert state["adam_generator"]["param_groups"][0]["lr"] == 0.5
    assert state["configuration"]["loss"] == "mmd-rep"
    assert "does not fit these settings: " in refusal(
        capsys, lambda: train(run, "--resume", "auto", "--width", "3", "--force")
    )


def test_what_does_not_change_the_numbers_may_change(run: Path):
    train(run, "--resume", "auto", "--iterations", "21", "--workers", "1", "--channels-last", "--log-every", "1")
    assert log(run)[-1]["iteration"] == 21


def test_another_number_of_images_is_refused_even_if_forced(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(loop, "load", lambda *args, **kwargs: images.fake(32, 3, count=100))
    message = refusal(capsys, lambda: train(run, "--resume", "auto", "--force"))
    assert "expected images 100, got 256" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", "folder", "--data-root", "nowhere"], "nowhere: expected a folder with images (.bmp, "),
        (["--batch-size", "1000"], "batch_size: expected at most the number of images, 256; got 1000"),
        (["--device", "cuda"], "device: "),
        (["--resume", "none.pt"], "There is no none.pt"),
    ],
)
def test_what_cannot_be_trained_is_explained_and_leaves_no_folder(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert message in refusal(capsys, lambda: train(tmp_path / "new" / "run", *options))
    assert not (tmp_path / "new" / "run").exists()


# Breakdowns


def test_networks_that_are_lost_are_not_saved_although_the_losses_were_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    during(monkeypatch, 20, lambda real: real.fill_(torch.nan))
    message = refusal(capsys, lambda: train(tmp_path / "run", "--log-every", "1000", "--iterations", "25"), status=1)
    assert "Stopped at iteration 20, where numbers in " in message
    assert last_state(tmp_path / "run")["iteration"] == 10


def test_training_that_breaks_down_stops_with_advice_and_keeps_what_was_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    # Spectral normalisation makes up for any size of the weights.
    folder = train(tmp_path / "run", "--normalisation", "none", "--iterations", "1")
    broken = ["--normalisation", "none", "--lr-generator", "1e37", "--log-every", "2", "--resume", "auto", "--force"]
    message = refusal(capsys, lambda: train(folder, *broken), status=1)
    assert "Stopped at iteration " in message
    assert "--total-scale" in message
    assert last_state(folder)["iteration"] == 1


# Layouts and compilation


def test_channels_last_changes_rounding_only(finished: Path, tmp_path: Path):
    laid_out = train(tmp_path / "run", "--channels-last", "--iterations", "1")
    assert_close(log(laid_out)[0], log(finished)[0], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("options", [[], ["--updates", "alternating", "--loss", "hinge", "--precision", "bf16-mixed"]])
def test_a_run_may_go_on_with_and_without_compilation(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def compile_(module: torch.nn.Module, **kwargs: object) -> None:
        # As torch.compile does, but without the minutes that generating code takes.
        module._compiled_call_impl = torch.compile(module._call_impl, backend="eager", **kwargs)

    monkeypatch.setattr(torch.nn.Module, "compile", compile_)
    torch.compiler.reset()
    whole = train(tmp_path / "whole", *SHORT, *options, "--iterations", "4")
    parts = train(tmp_path / "parts", *SHORT, *options, "--iterations", "2", "--compile")
    assert last_state(parts)["discriminator"].keys() == last_state(whole)["discriminator"].keys()
    train(parts, *SHORT, *options, "--iterations", "4", "--resume", "auto")
    for ours, theirs in zip(log(parts), log(whole), strict=True):
        assert ours["loss_generator"] == pytest.approx(theirs["loss_generator"], rel=0.05, abs=0.02)
