"""Whole runs of the scripts: what they leave behind, and that they go on as if they had never been interrupted."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from dcgan import checkpoints, gan, prepared, record, script, sources
from dcgan.checkpoints import load
from dcgan.presets import PRESETS
from dcgan.progress import Progress
from PIL import Image
from processes import in_a_fork, start

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = {
    "dcgan_cifar10": 32,
    "dcgan_stl10": 48,
    "dcgan_celeba": 64,
    "dcgan_lsun": 64,
    "dcgan_fashion_mnist": 32,
    "dcgan_fake": 32,
}


def train(folder: Path, *options: str) -> Path:
    """Run the smallest training, on generated images."""
    return script.main("fake", "Train.", ["--out", str(folder), "--quiet", "--device", "cpu", *options])


def last_state(folder: Path) -> dict[str, Any]:
    return load(checkpoints.Checkpoints(folder / "checkpoints").paths()[0])


def log(folder: Path) -> list[dict[str, Any]]:
    """Read the log of a run but the speed."""
    return [{**line, "images_per_second": 0} for line in record.read_log(folder / "log.jsonl")]


def assert_same_run(first: Path, second: Path) -> None:
    """Compare all that two runs have left behind, bit for bit."""
    assert_equal(last_state(first), last_state(second))
    assert log(first) == log(second)
    sheets = [sorted((folder / "samples").glob("*.png")) for folder in (first, second)]
    assert [path.name for path in sheets[0]] == [path.name for path in sheets[1]]
    for one, other in zip(*sheets, strict=True):
        assert one.read_bytes() == other.read_bytes()


def assert_equal(first: object, second: object) -> None:
    if isinstance(first, torch.Tensor):
        assert isinstance(second, torch.Tensor)
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert isinstance(second, dict)
        assert first.keys() == second.keys()
        for key in first:
            assert_equal(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert isinstance(second, list | tuple)
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_equal(one, other)
    else:
        assert first == second


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("runs") / "finished")


# What a run is


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_script_trains_on_fake_data_of_its_real_shape(name: str, tmp_path: Path):
    module = importlib.import_module(name)
    reduced = ["--dataset", "fake", "--width", "2", "--batch-size", "4", "--iterations", "4", "--quiet"]
    folder = module.main([*reduced, "--device", "cpu", "--out", str(tmp_path / "run")])
    lines = log(folder)
    assert lines[-1]["iteration"] == 4
    with Image.open(folder / "samples" / "iteration-00000004.png") as sheet:
        assert sheet.size == (8 * (SCRIPTS[name] + 4),) * 2
        assert sheet.mode == ("L" if name == "dcgan_fashion_mnist" else "RGB")


def test_a_run_leaves_its_configuration_a_log_samples_and_two_checkpoints(finished: Path):
    files = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    assert files == {
        "configuration.json",
        "log.jsonl",
        "training.lock",
        *(f"samples/iteration-{iteration:08d}.png" for iteration in (0, 10, 20)),
        *(f"checkpoints/iteration-{iteration:08d}.pt" for iteration in (10, 20)),
    }
    written = json.loads((finished / "configuration.json").read_text(encoding="utf-8"))
    assert written["dataset"] == "fake"
    assert written["scores"] == 16


def test_the_log_has_losses_kernel_means_gradient_norms_and_spectral_norms(finished: Path):
    lines = record.read_log(finished / "log.jsonl")
    assert [line["iteration"] for line in lines] == [1, 5, 10, 15, 20]
    for line in lines:
        # The generator's loss is made of the means of the unbounded kernel.
        assert line["loss_generator"] == pytest.approx(line["k_rr"] - 2 * line["k_rf"] + line["k_ff"], abs=1e-5)
        assert len(line["sigma"]) == 8
        assert min(line["gradient_norm_discriminator"], line["gradient_norm_generator"], *line["sigma"].values()) > 0
        assert line["images_per_second"] > 0


@pytest.mark.parametrize(
    "options",
    [
        ["--loss", "hinge"],
        ["--normalisation", "matrix", "--updates", "alternating", "--loss", "mmd-rq"],
        ["--gradient-penalty", "0.1", "--loss", "mmd-rep"],
        ["--loss", "smmd"],
    ],
)
def test_other_losses_and_ways_to_train_run_and_resume_too(options: list[str], tmp_path: Path):
    short = [*options, "--checkpoint-every", "2", "--log-every", "1"]
    whole = train(tmp_path / "whole", *short, "--iterations", "4")
    parts = train(tmp_path / "parts", *short, "--iterations", "2")
    train(parts, *short, "--iterations", "4", "--resume", "auto")
    assert_equal(last_state(whole)["generator"], last_state(parts)["generator"])
    assert_equal(last_state(whole)["adam_discriminator"], last_state(parts)["adam_discriminator"])
    kernel_means = "k_rr" in log(whole)[0]
    assert kernel_means == ("hinge" not in options)
    assert ("sigma" in log(whole)[0]) == (not {"--gradient-penalty", "smmd"} & set(options))


def test_milestones_stay_whatever_else_is_saved(tmp_path: Path):
    options = ["--checkpoint-every", "4", "--keep-every", "3", "--iterations", "10"]
    folder = train(tmp_path / "run", *options)
    kept = [int(path.stem[10:]) for path in checkpoints.Checkpoints(folder / "checkpoints").paths()]
    assert kept == [10, 9, 6, 3]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_seed_decides_a_run(seed: int, finished: Path, tmp_path: Path):
    again = train(tmp_path / "again", "--seed", str(seed))
    assert (log(again) == log(finished)) is (seed == 0)


def test_a_dry_run_prints_the_resolved_configuration_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    train(tmp_path / "run", "--dry-run", "--loss", "hinge")
    printed = json.loads(capsys.readouterr().out)
    assert printed["scores"] == 1
    assert printed["loss"] == "hinge"
    assert printed.keys() == PRESETS["fake"].__dataclass_fields__.keys()
    assert not (tmp_path / "run").exists()


def test_a_run_says_how_far_it_is_in_plain_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "run"
    script.main("fake", "Train.", ["--out", str(folder), "--iterations", "5"])
    first, last, where = capsys.readouterr().out.splitlines()
    assert first.startswith("iteration 1 of 5: loss_discriminator ")
    assert last.startswith("iteration 5 of 5: loss_discriminator ")
    assert str(folder) in where


def test_a_run_shows_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    bar = Progress(7, 10, quiet=False)
    for _ in range(3):
        bar.advance()
    bar.show({"iteration": 10, "loss_generator": 0.125, "sigma": {}})
    bar.close()
    shown = capsys.readouterr()
    assert not shown.out
    assert "10/10" in shown.err
    assert "loss_generator=0.125" in shown.err


# Going on


@pytest.mark.parametrize("before", [10, 13])
def test_a_run_goes_on_from_where_it_ended(before: int, finished: Path, tmp_path: Path):
    folder = train(tmp_path / "run", "--iterations", str(before))
    train(folder, "--resume", "auto")
    # The shorter run had fewer iterations to do, and logged and drew its end too.
    state, expected = last_state(folder), last_state(finished)
    assert_equal({**state, "configuration": 0}, {**expected, "configuration": 0})


def die_again_and_again(rank: int, folder: str, found: str) -> None:
    """Train in one fork after the other, each of which kills itself at another point; note the checkpoints then."""
    torch.set_num_threads(1)
    step, replace, tidy = gan.GAN.step, os.replace, checkpoints.Checkpoints._tidy

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def half_a_checkpoint() -> None:
        torch.save = lambda state, path: (path.write_bytes(b"PK" * 1000), die())

    def between_checkpoints() -> None:
        gan.GAN.step = lambda self, real: die() if self.iteration == 13 else step(self, real)

    def before_it_is_in_its_place() -> None:
        os.replace = lambda new, old: die() if old.name == "iteration-00000020.pt" else replace(new, old)

    def before_the_partial_file_is_deleted() -> None:
        checkpoints.Checkpoints._tidy = lambda self, iteration: die() if iteration == 20 else tidy(self, iteration)

    lines = []
    for prepare in (
        half_a_checkpoint,
        between_checkpoints,
        before_it_is_in_its_place,
        before_the_partial_file_is_deleted,
    ):

        def go_on(prepare: Callable[[], None] = prepare) -> None:
            prepare()
            train(Path(folder), "--resume", "auto")

        assert in_a_fork(go_on) == -signal.SIGKILL
        lines.append(" ".join(sorted(os.listdir(os.path.join(folder, "checkpoints")))))
    Path(found).write_text("\n".join(lines), encoding="utf-8")


@pytest.mark.xdist_group("processes")
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_was_not(finished: Path, tmp_path: Path):
    folder, found = tmp_path / "run", tmp_path / "found"
    start(die_again_and_again, 1, str(folder), str(found))
    lines = found.read_text(encoding="utf-8").splitlines()
    half, between, unplaced, untidy = (re.sub(r"\.\d+\.partial", "!", line) for line in lines)
    assert half == "iteration-00000010.pt!"
    assert between == "iteration-00000010.pt"
    assert unplaced == "iteration-00000010.pt iteration-00000020.pt!"
    assert untidy == "iteration-00000010.pt iteration-00000020.pt iteration-00000020.pt!"
    train(folder, "--resume", "auto")
    assert_same_run(finished, folder)


@pytest.fixture
def _usual_signals() -> Iterator[None]:
    """Handle signals as in a foreground process, however the tests were started."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler), signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, before[0])
    signal.signal(signal.SIGTERM, before[1])


@pytest.mark.usefixtures("_usual_signals")
def test_an_ignored_signal_stays_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: Path):
    step: Callable[..., gan.Step] = gan.GAN.step

    def interrupted(self: gan.GAN, real: torch.Tensor) -> gan.Step:
        signal.raise_signal(signal.SIGINT)
        return step(self, real)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    monkeypatch.setattr(gan.GAN, "step", interrupted)
    assert_same_run(finished, train(tmp_path / "run"))


@pytest.mark.usefixtures("_usual_signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_and_goes_on(
    number: signal.Signals,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    step: Callable[..., gan.Step] = gan.GAN.step

    def interrupted(self: gan.GAN, real: torch.Tensor) -> gan.Step:
        if self.iteration == 6:
            signal.raise_signal(number)
        return step(self, real)

    folder = tmp_path / "run"
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        patch.setattr(gan.GAN, "step", interrupted)
        with pytest.raises(SystemExit, match=str(128 + number)):
            train(folder)
    assert handlers == [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    assert "Interrupted after iteration 7; continue with the same options and --resume auto" in capsys.readouterr().out
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["iteration-00000007.pt"]
    train(folder, "--resume", "auto")
    assert_same_run(finished, folder)


@pytest.mark.usefixtures("_usual_signals")
def test_a_second_signal_stops_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def twice(self: gan.GAN, real: torch.Tensor) -> gan.Step:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the second signal was ignored")

    monkeypatch.setattr(gan.GAN, "step", twice)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run")


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = shutil.copytree(finished, tmp_path / "run")
    newest = folder / "checkpoints" / "iteration-00000020.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    train(folder, "--resume", "auto")
    assert f"Warning: {newest} cannot be read, it is truncated" in capsys.readouterr().err
    assert_same_run(finished, folder)


def test_a_run_may_go_on_from_a_chosen_checkpoint_elsewhere(finished: Path, tmp_path: Path):
    chosen = finished / "checkpoints" / "iteration-00000010.pt"
    folder = train(tmp_path / "run", "--resume", str(chosen))
    assert_equal(last_state(folder), last_state(finished))
    assert [line["iteration"] for line in log(folder)] == [15, 20]


def test_a_run_that_goes_back_leaves_no_later_checkpoint(finished: Path, tmp_path: Path):
    folder = shutil.copytree(finished, tmp_path / "run")
    chosen = folder / "checkpoints" / "iteration-00000010.pt"
    train(folder, "--resume", str(chosen), "--checkpoint-every", "5", "--iterations", "15")
    assert last_state(folder)["iteration"] == 15
    assert [line["iteration"] for line in log(folder)] == [1, 5, 10, 15]


# What is refused


def refusal(capsys: pytest.CaptureFixture[str], folder: Path, *options: str) -> str:
    with pytest.raises(SystemExit, match="2"):
        train(folder, *options)
    return capsys.readouterr().err


def test_a_folder_that_holds_a_run_is_refused(finished: Path, capsys: pytest.CaptureFixture[str]):
    message = refusal(capsys, finished)
    assert f"{finished} is not empty; choose another --out, or continue its run by --resume auto" in message


def test_a_changed_configuration_is_refused_unless_forced(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = shutil.copytree(finished, tmp_path / "run")
    changed = ["--resume", "auto", "--iterations", "22", "--lr-generator", "0.5", "--loss", "mmd-rep"]
    message = refusal(capsys, folder, *changed)
    assert "loss was 'mmd-rep-b' and is 'mmd-rep'; lr_generator was 0.0002 and is 0.5. Choose" in message
    assert last_state(folder)["iteration"] == 20
    train(folder, *changed, "--force")
    state = last_state(folder)
    assert state["iteration"] == 22
    assert state["adam_generator"]["param_groups"][0]["lr"] == 0.5
    assert state["configuration"]["loss"] == "mmd-rep"


def test_a_checkpoint_that_does_not_fit_is_refused_even_if_forced(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = shutil.copytree(finished, tmp_path / "run")
    message = refusal(capsys, folder, "--resume", "auto", "--width", "3", "--force")
    assert "The checkpoint does not fit this configuration: " in message


def test_another_number_of_images_is_refused_even_if_forced(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    folder = shutil.copytree(finished, tmp_path / "run")
    fewer = sources.fake(32, 3, count=100)
    monkeypatch.setattr(prepared, "make_source", lambda *args, **kwargs: fewer)
    message = refusal(capsys, folder, "--resume", "auto", "--iterations", "22", "--force")
    assert "was trained with a data set of 256 images, and this one has 100" in message


@pytest.mark.parametrize("state", [{}, {"configuration": {"colour": 1}}, {"configuration": {"seed": "0"}}])
def test_a_checkpoint_without_a_configuration_is_refused(
    state: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = checkpoints.Checkpoints(tmp_path).save(1, state)
    message = refusal(capsys, tmp_path / "run", "--resume", str(path))
    assert "The configuration in the checkpoint cannot be used: " in message


def test_a_foreign_checkpoint_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torch.save({"model": torch.zeros(1)}, tmp_path / "other.pt")
    message = refusal(capsys, tmp_path / "run", "--resume", str(tmp_path / "other.pt"))
    assert "is no checkpoint of these scripts" in message


def test_a_folder_of_damaged_checkpoints_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "iteration-00000010.pt").touch()
    assert "can be read; move it away to start anew" in refusal(capsys, tmp_path, "--resume", "auto")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", "folder", "--data-root", "nowhere"], "There is no nowhere. Put images into nowhere"),
        (["--batch-size", "1000"], "batch_size: expected at most the number of images, 256; got 1000"),
        (["--normalisation", "exact"], "method: "),
        (["--device", "abacus"], "device: "),
    ],
)
def test_what_cannot_be_trained_is_explained(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert message in refusal(capsys, tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


def test_networks_that_are_lost_are_not_saved_although_the_losses_were_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    step: Callable[..., gan.Step] = gan.GAN.step

    def lost(self: gan.GAN, real: torch.Tensor) -> gan.Step:
        found = step(self, real)
        if self.iteration == 20:
            self.generator[0].bias.grad.fill_(torch.nan)
        return found

    monkeypatch.setattr(gan.GAN, "step", lost)
    with pytest.raises(SystemExit, match="iteration 20, where gradient_norm_generator is nan"):
        train(tmp_path / "run", "--log-every", "1000", "--iterations", "25", "--checkpoint-every", "10")
    assert last_state(tmp_path / "run")["iteration"] == 10


@pytest.mark.parametrize("rate", ["--lr-discriminator", "--lr-generator"])
def test_training_that_breaks_down_stops_with_advice_and_keeps_what_was_good(rate: str, tmp_path: Path):
    # Spectral normalisation makes up for any size of the weights.
    folder = train(tmp_path / "run", "--normalisation", "none", "--iterations", "1")
    broken = ["--normalisation", "none", rate, "1e37", "--log-every", "1000", "--resume", "auto", "--force"]
    with pytest.raises(SystemExit, match=r"Stopped at iteration \d+, where \w+ is .*--scale .*--seed"):
        train(folder, *broken)
    assert last_state(folder)["iteration"] == 1


def test_a_run_that_is_longer_than_asked_for_is_at_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    train(tmp_path, "--iterations", "3")
    before = log(tmp_path)
    train(tmp_path, "--iterations", "2", "--resume", "auto")
    assert "Interrupted" not in capsys.readouterr().out
    assert log(tmp_path) == before
