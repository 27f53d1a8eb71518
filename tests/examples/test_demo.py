"""The demo that newcomers run: what it leaves behind, where, and that a seed decides it."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from matplotlib.image import imread

pytestmark = pytest.mark.xdist_group("demo")  # whose runs are shared

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = ("--iterations", "12", "--batch-size", "8", "--quiet")
Run = Callable[..., Path]


@pytest.fixture(scope="module")
def demo() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        module = importlib.import_module("demo")
        patch.setattr("digits.features.EPOCHS", 2)
        yield module
    for name in [name for name in sys.modules if name in ("demo", "digits") or name.startswith("digits.")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def finished(demo: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo.main([*SMALL, "--out", str(tmp_path_factory.mktemp("runs") / "first")])


@pytest.fixture(scope="module")
def again(demo: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Return the folder of a second run with the same seed, which had files in it before, and what the run printed."""
    folder = tmp_path_factory.mktemp("again")
    (folder / "samples").mkdir()
    for name in ("metrics.jsonl", "samples/step-009999.png", "samples/mine.png", "notes.txt"):
        (folder / name).write_text("before", encoding="utf-8")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        demo.main([*SMALL, "--out", str(folder), "--overwrite"])
    return folder, printed.getvalue().splitlines()


def metrics(folder: Path) -> list[dict[str, float]]:
    """Read the metrics of a run but the times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def test_the_digits_are_images_of_the_right_kind_in_two_separate_halves(demo: ModuleType):
    digits = demo.load(seed=0)
    assert digits.images.shape == (1797, 1, 32, 32)
    assert digits.images.min() == -1
    assert digits.images.max() == 1
    assert torch.bincount(digits.labels).min() > 170
    first, second = digits.halves()
    assert first.shape == second.shape == (898, 1, 32, 32)
    assert torch.cat([first, second]).unique(dim=0).shape[0] == digits.images[:-1].unique(dim=0).shape[0]


def test_a_run_leaves_samples_curves_metrics_and_a_summary(finished: Path):
    sheets = [f"samples/step-{step:06d}.png" for step in (0, 1, 3, 6, 12)]
    files = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    assert files == {"metrics.jsonl", "summary.json", "samples.png", "curves.png", *sheets}
    for sheet in sheets:
        pixels = imread(finished / sheet)
        assert pixels.std() > 0.001, f"{sheet} is blank"


def test_the_metrics_have_a_line_of_finite_numbers_for_each_logged_step(finished: Path):
    lines = metrics(finished)
    assert [line["step"] for line in lines] == [1, 10]
    for line in lines:
        assert list(line) == ["step", "loss_discriminator", "loss_generator", "k_rr", "k_rf", "k_ff", "saturated"]
        assert all(math.isfinite(value) for value in line.values())
        # The unbounded kernel means make up the generator's loss.
        assert line["loss_generator"] == pytest.approx(line["k_rr"] - 2 * line["k_rf"] + line["k_ff"], abs=1e-5)


def test_the_summary_says_how_the_run_went_and_how_to_repeat_it(finished: Path):
    written = summary(finished)
    assert set(written) == {
        "result",
        "seed",
        "configuration",
        "feature_network",
        "frechet_distance",
        "frechet_distance_by_step",
        "seconds",
        "versions",
    }
    assert written["seed"] == 0
    assert written["configuration"]["batch_size"] == 8
    assert written["configuration"]["threads"] == torch.get_num_threads()
    assert 0.5 < written["feature_network"]["held_out_accuracy"] <= 1
    assert set(written["versions"]) == {"python", "torch", "torch_mmd_losses", "torchmetrics", "sklearn", "numpy"}
    parts = written["seconds"].copy()
    assert parts.pop("total") == pytest.approx(sum(parts.values()), rel=0.05)


def test_the_summary_compares_equally_many_images(finished: Path):
    distance, by_step = summary(finished)["frechet_distance"], summary(finished)["frechet_distance_by_step"]
    assert distance["images_per_side"] == 898
    assert distance["before"] == by_step["0"]
    assert distance["after"] == by_step["12"]
    assert distance["ratio"] == pytest.approx(distance["before"] / distance["after"])
    assert 0 < distance["real_halves"] < distance["before"]


def test_the_seed_decides_a_run(demo: ModuleType, finished: Path, again: tuple[Path, list[str]], tmp_path: Path):
    other = demo.main([*SMALL, "--seed", "1", "--out", str(tmp_path / "other")])
    for folder, same in ((again[0], True), (other, False)):
        assert (metrics(folder) == metrics(finished)) is same
        key = "frechet_distance_by_step"
        assert (summary(folder)[key] == summary(finished)[key]) is same


def test_the_result_is_the_last_but_one_line_and_the_folder_the_last(again: tuple[Path, list[str]]):
    folder, (result, where) = again
    assert result == summary(folder)["result"]
    assert "times closer to the data: Frechet distance" in result
    assert str(folder) in where


def test_a_folder_that_holds_a_run_is_refused(
    demo: ModuleType, finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(demo, "run", lambda options, folder: pytest.fail("the demo must not start"))
    with pytest.raises(SystemExit, match="2"):
        demo.main([*SMALL, "--out", str(finished)])
    assert f"{finished} is not empty; choose another folder, or --overwrite" in capsys.readouterr().err


def test_overwrite_replaces_the_run_and_nothing_else(again: tuple[Path, list[str]]):
    folder, _ = again
    assert len(metrics(folder)) == 2
    assert not (folder / "samples/step-009999.png").exists()
    for kept in ("samples/mine.png", "notes.txt"):
        assert (folder / kept).read_text(encoding="utf-8") == "before"


def test_runs_without_a_chosen_folder_are_numbered(
    demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(demo, "run", lambda options, folder: "result")
    monkeypatch.chdir(tmp_path)
    folders = [demo.main([]), demo.main([])]
    (tmp_path / "runs/demo-041").mkdir()
    (tmp_path / "runs/demo-best").mkdir()
    folders.append(demo.main([]))
    assert folders == [Path("runs/demo-001"), Path("runs/demo-002"), Path("runs/demo-042")]
    assert str(folders[-1]) in capsys.readouterr().out


@pytest.mark.parametrize("rate", ["--lr-discriminator", "--lr-generator"])
def test_training_that_breaks_down_stops_with_advice(demo: ModuleType, tmp_path: Path, rate: str):
    with pytest.raises(SystemExit, match=r"(?s)Stopped at step \d+, where the loss .* is (nan|inf).*--scale.*--seed"):
        demo.main([*SMALL, "--out", str(tmp_path), rate, "1e38"])
    assert not (tmp_path / "summary.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--iterations", "0"], "expected an integer >= 1, got 0"),
        (["--batch-size", "1"], "expected an integer from 2 to 1797, got 1"),
        (["--scale", "0"], "expected a number > 0, got 0"),
        (["--lr-generator", "nan"], "expected a number > 0, got nan"),
        (["--threads", "two"], "invalid integer value"),
        (["--device", "abacus"], "abacus"),
        (["--out", __file__], "is a file; choose a folder"),
    ],
)
def test_wrong_options_are_explained(
    demo: ModuleType, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
):
    with pytest.raises(SystemExit, match="2"):
        demo.main(arguments)
    assert message in capsys.readouterr().err
