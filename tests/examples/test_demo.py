"""The demo that newcomers run: the files of a run, its folder, its seed, and wrong options."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import demo
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.image import imread

pytestmark = pytest.mark.xdist_group("demo")  # whose run is shared

SMALL = ("--iterations", "12", "--batch-size", "8")


@pytest.fixture(autouse=True, scope="module")
def short_training_of_features():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "FEATURE_EPOCHS", 2)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo.main([*SMALL, "--out", str(tmp_path_factory.mktemp("runs") / "first")])


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def distances(folder: Path) -> dict[str, float]:
    return {line["images"]: line["frechet_distance"] for line in metrics(folder) if "images" in line}


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the message of wrong usage without the frame around it."""
    with pytest.raises(SystemExit, match="2"):
        demo.main(arguments)
    return re.sub(r"[\s│]+", " ", capsys.readouterr().err)


def test_the_digits_are_images_in_minus_one_to_one_with_their_labels():
    images, labels = demo.digits(seed=0)
    assert images.shape == (1797, 1, 32, 32)
    assert (images.min(), images.max()) == (-1, 1)
    assert torch.bincount(labels).min() > 170


def test_batches_of_an_epoch_are_full_and_have_no_image_twice():
    batches = demo.batches(torch.arange(10), 3)
    epoch = [next(batches) for _ in range(3)]
    assert [len(batch) for batch in epoch] == [3, 3, 3]
    assert len(torch.cat(epoch).unique()) == 9


def test_a_run_leaves_pictures_and_a_log(finished: Path):
    assert {path.name for path in finished.rglob("*")} == {"metrics.jsonl", "samples.png", "curves.png"}
    assert all(imread(path).std() > 0.001 for path in finished.glob("*.png"))


def test_curves_are_those_of_the_log(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(Axes, "plot", lambda _, x, y, label, **__: drawn.update({label: (x, y)}))
    monkeypatch.setattr(Axes, "legend", lambda *_, **__: None)  # of lines that are not there
    lines = [line for line in metrics(finished) if "step" in line]
    demo.draw_curves(tmp_path / "x.png", lines)
    names = ["loss_discriminator", "loss_generator", "k_rr", "k_rf", "k_ff"]
    assert drawn == {name: ([1, 10], [line[name] for line in lines]) for name in names}


def test_samples_are_laid_out_in_six_rows_of_four(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn = []
    monkeypatch.setattr(Axes, "imshow", lambda _, image, **__: drawn.append(image))
    images = torch.arange(30.0).view(30, 1, 1, 1).expand(-1, -1, 32, 32)
    demo.draw_samples(tmp_path / "x.png", {"a": images, "b": images + 100})
    assert [image.shape for image in drawn] == [(6 * 38, 4 * 38)] * 2
    for image, first in zip(drawn, (0, 100), strict=True):
        assert (image[19::38, 19::38] == first + torch.arange(24).reshape(6, 4).numpy()).all()


def test_the_metrics_have_a_line_of_finite_numbers_for_each_logged_step(finished: Path):
    lines = [line for line in metrics(finished) if "step" in line]
    assert [line["step"] for line in lines] == [1, 10]
    for line in lines:
        assert list(line) == ["step", "loss_discriminator", "loss_generator", "k_rr", "k_rf", "k_ff", "saturated"]
        assert all(math.isfinite(value) for value in line.values())
        # The unbounded kernel means make up the generator's loss.
        assert line["loss_generator"] == pytest.approx(line["k_rr"] - 2 * line["k_rf"] + line["k_ff"], abs=1e-5)


def test_the_log_has_the_distances_of_samples_and_of_real_digits(finished: Path):
    found = distances(finished)
    assert list(found) == [*(f"step {step}" for step in (0, 1, 3, 6, 12)), "real digits"]
    assert 0 < found["real digits"] < found["step 0"]


def test_the_seed_decides_a_run(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(demo, "draw_samples", lambda *_: None)  # which takes most of the time
    monkeypatch.chdir(tmp_path)
    demo.main(SMALL)
    assert metrics(Path("runs/demo")) == metrics(finished)
    features, result, where = capsys.readouterr().out.splitlines()
    assert 50 < float(re.search(r"recognises ([\d.]+)% of held-out digits", features)[1]) <= 100
    before, after, real = (f"{distances(finished)[name]:.1f}" for name in ("step 0", "step 12", "real digits"))
    assert f"Frechet distance {before} before training, {after} after it, {real} between two halves" in result
    assert where == "Samples, curves, and a log of losses and distances: runs/demo"
    images = demo.digits(seed=0)
    monkeypatch.setattr(demo, "digits", lambda _: images)
    demo.main([*SMALL, "--out", "other", "--seed", "1"])
    assert metrics(Path("other")) != metrics(finished)


def test_an_earlier_run_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    earlier = Path("runs/demo/metrics.jsonl")
    earlier.parent.mkdir(parents=True)
    earlier.write_text("before", encoding="utf-8")
    assert "out: expected a new or empty folder, got runs/demo; choose another" in refusal([*SMALL], capsys)
    assert earlier.read_text(encoding="utf-8") == "before"
    assert list(Path().rglob("*.*")) == [earlier]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=f"out: .*{tmp_path}/file/run"):
        demo.main([*SMALL, "--out", str(tmp_path / "file" / "run")])


@pytest.mark.parametrize("rate", ["--lr-discriminator", "--lr-generator"])
def test_training_that_breaks_down_stops_with_advice(tmp_path: Path, rate: str):
    with pytest.raises(SystemExit, match=r"Stopped where a loss is not finite: .*(nan|inf).*--scale.*--seed"):
        demo.main([*SMALL, "--out", str(tmp_path), rate, "1e38"])
    assert not (tmp_path / "samples.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--iterations", "0"], "iterations: expected a number >= 1, got 0"),
        (["--batch-size", "1"], "batch_size: expected a number >= 2 and < 1798, got 1"),
        (["--scale", "0"], "scale: expected a number > 0, got 0"),
        (["--lr-generator", "nan"], "got nan"),
        (["--seed", "-1"], "seed: expected a number >= 0 and < 4294967296, got -1"),
        (["--iterations", "two"], "Error parsing --iterations"),
        (["--out", __file__], "out: expected a new or empty folder"),
        (["--colour", "red"], "Unrecognized options: --colour"),
    ],
)
def test_wrong_options_are_explained(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str):
    assert re.search(message, refusal(arguments, capsys))
