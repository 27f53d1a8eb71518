"""The demo that newcomers run: the files of a run, its folder, its seed, and wrong options."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import demo
import pytest
import torch
from matplotlib.image import imread

pytestmark = pytest.mark.xdist_group("demo")  # whose run is shared

SMALL = ("--iterations", "12", "--batch-size", "8", "--quiet")


@pytest.fixture(autouse=True, scope="module")
def short_training_of_features():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "FEATURE_EPOCHS", 2)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo.main([*SMALL, "--out", str(tmp_path_factory.mktemp("runs") / "first")])


def metrics(folder: Path) -> list[dict[str, float]]:
    """Read the metrics of a run except the times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def summary(folder: Path) -> dict[str, object]:
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


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


def test_a_run_leaves_samples_metrics_and_a_summary(finished: Path):
    sheets = [f"samples/step-{step:06d}.png" for step in (0, 1, 3, 6, 12)]
    files = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    assert files == {"metrics.jsonl", "summary.json", "samples.png", *sheets}
    assert all(imread(finished / name).std() > 0.001 for name in files if name.endswith("png"))


def test_the_metrics_have_a_line_of_finite_numbers_for_each_logged_step(finished: Path):
    lines = metrics(finished)
    assert [line["step"] for line in lines] == [1, 10]
    for line in lines:
        assert list(line) == ["step", "loss_discriminator", "loss_generator", "k_rr", "k_rf", "k_ff", "saturated"]
        assert all(math.isfinite(value) for value in line.values())
        # The unbounded kernel means make up the generator's loss.
        assert line["loss_generator"] == pytest.approx(line["k_rr"] - 2 * line["k_rf"] + line["k_ff"], abs=1e-5)


def test_the_summary_compares_equally_many_images_and_names_its_configuration(finished: Path):
    written = summary(finished)
    distance, by_step = written["frechet_distance"], written["frechet_distance_by_step"]
    assert distance["images_per_side"] == 898
    assert (distance["before"], distance["after"]) == (by_step["0"], by_step["12"])
    assert 0 < distance["real_halves"] < distance["before"]
    assert 0.5 < written["feature_network_accuracy"] <= 1
    assert (written["configuration"]["seed"], written["configuration"]["batch_size"]) == (0, 8)
    assert written["versions"]["torch"].startswith(torch.__version__.partition("+")[0])


def test_the_seed_decides_a_run(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(demo, "draw", lambda *_: None)  # which takes most of the time
    monkeypatch.chdir(tmp_path)
    demo.main(SMALL)
    assert metrics(Path("runs/demo")) == metrics(finished)
    assert summary(Path("runs/demo"))["frechet_distance_by_step"] == summary(finished)["frechet_distance_by_step"]
    result, where = capsys.readouterr().out.splitlines()
    assert result == summary(Path("runs/demo"))["result"]
    assert "times closer to the data: Frechet distance" in result
    assert where.endswith(": runs/demo")
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


@pytest.mark.parametrize("rate", ["--lr-discriminator", "--lr-generator"])
def test_training_that_breaks_down_stops_with_advice(tmp_path: Path, rate: str):
    with pytest.raises(SystemExit, match=r"Stopped where a loss is not finite: .*(nan|inf).*--scale.*--seed"):
        demo.main([*SMALL, "--out", str(tmp_path), rate, "1e38"])
    assert not (tmp_path / "summary.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--iterations", "0"], "iterations: expected a number >= 1, got 0"),
        (["--batch-size", "1"], "batch_size: expected a number >= 2 and < 1798, got 1"),
        (["--scale", "0"], "scale: expected a number > 0, got 0"),
        (["--lr-generator", "nan"], "got nan"),
        (["--seed", "-1"], "seed: expected a number >= 0 and < 4294967296, got -1"),
        (["--iterations", "two"], "Error parsing --iterations"),
        (["--device", "abacus"], "device: .*abacus"),
        (["--out", __file__], "out: expected a new or empty folder"),
        (["--colour", "red"], "Unrecognized options: --colour"),
    ],
)
def test_wrong_options_are_explained(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str):
    assert re.search(message, refusal(arguments, capsys))
