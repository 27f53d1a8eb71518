"""What goes wrong around evaluations, sweeps and studies: damaged files, and folders that cannot be made."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import study
import sweep
import torch
from evaluation import classifier, images
from sweeps.folders import Folder, Outcome, Status
from test_study import PLACE, write_everything
from trained import train

pytestmark = pytest.mark.xdist_group("processes")

NEWEST = "iteration-00000002.pt"


def refusal(capsys: pytest.CaptureFixture[str], command: Callable[[], object], status: str = "2") -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit, match=status) as end:
        command()
    return capsys.readouterr().err + str(end.value)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("runs") / "finished", "--iterations", "2", "--checkpoint-every", "1")


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


@pytest.mark.parametrize("parts", [{"averaged": [1]}, {"averaged": {}}, {"configuration": {"seed": "0"}}])
def test_wrong_types_are_explained_by_the_evaluation_too(parts: dict[str, object], run: Path):
    newest = run / "checkpoints" / NEWEST
    torch.save(torch.load(newest, weights_only=True) | parts, newest)
    with pytest.raises(ValueError, match=f"run: the .* in {newest} cannot be used: "):
        images.generate(images.find(newest), "averaged", 0, 2, 2, torch.device("cpu"))


def test_damaged_weights_of_a_classifier_are_refused(tmp_path: Path):
    path = tmp_path / "weights.pt"
    network = classifier.Classifier(size=8, channels=1, classes=2)
    classifier.save(path, network, {})
    content, weight = bytearray(path.read_bytes()), network.head[1].weight.detach().numpy().tobytes()
    content[content.index(weight)] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.pt cannot be read as weights: .* does not match its checksum"):
        classifier.load(path)


# Damaged logs and records


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", "{"),
        ("run.json", '{"study": "table1"}'),
        ("outcome.json", "[]"),
        ("outcome.json", '{"status": "lost"}'),
        ("outcome.json", '{"status": "finished", "colour": 1}'),
        ("configuration.json", "{"),
        ("log.jsonl", "no\n"),
        ("evaluations/x.json", '{"metrics": 1}'),
    ],
)
def test_a_broken_record_of_a_sweep_is_named(
    name: str, content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = Folder(tmp_path / "sweep" / "one")
    settings = {"loss": "hinge", "lr-discriminator": "0.0001", "lr-generator": "0.0001", "seed": "0"}
    folder.describe({"study": "table1", "script": "x", "settings": settings, "options": []})
    if name.startswith("evaluations"):
        folder.save(Outcome(Status.FINISHED, iteration=3))
    (folder.path / name).parent.mkdir(exist_ok=True)
    (folder.path / name).write_text(content, encoding="utf-8")
    message = refusal(capsys, lambda: sweep.main(["collect", "table1", "--out", str(tmp_path / "sweep")]))
    assert f"{folder.path / name}" in message
    assert "expected " in message


@pytest.fixture(scope="module")
def raw_logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = tmp_path_factory.mktemp("study") / "raw"
    write_everything(raw, 1)
    return raw


def damage_json(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"}\n", b"\n", 1))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def leave_out_evaluations(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if b'"evaluation"' not in line))


def rename_a_kind(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"training"', b'"trainings"', 1))


LOG = "loss=mmd-rep,lr-discriminator=0.0005,lr-generator=0.002,seed=0.jsonl"


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (LOG, damage_json, ", line 1: expected JSON"),
        (LOG, cut, ": expected JSON"),
        (LOG, leave_out_evaluations, ": expected one run, with evaluations"),
        (LOG, rename_a_kind, ", line 2: expected the entries of a line of a kind, got trainings"),
        ("costs.jsonl", damage_json, ", line 1: expected JSON"),
        ("floor.json", damage_json, ": expected JSON"),
        (LOG, Path.unlink, " are missing in "),
        ("loss=mmd-rep,lr-discriminator=0.0005,lr-generator=0.002,seed=2.jsonl", Path.unlink, "seed=2.jsonl"),
        ("costs.jsonl", Path.unlink, "1 files are missing in "),
        ("floor.json", Path.unlink, "1 files are missing in "),
    ],
)
def test_the_report_of_a_study_ends_with_an_error_if_a_log_is_damaged_or_missing(
    name: str,
    damage: Callable[[Path], None],
    message: str,
    raw_logs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    raw = shutil.copytree(raw_logs, tmp_path / "raw")
    damage(raw / name)
    readme = tmp_path / "README.md"
    readme.write_text(PLACE.format("| old |"), encoding="utf-8")
    error = refusal(capsys, lambda: study.main(["report", "--raw", str(raw), "--root", str(tmp_path)]))
    assert message in error
    assert name in error
    assert readme.read_text(encoding="utf-8") == PLACE.format("| old |")
    assert not (tmp_path / "docs").exists()


# Where nothing can be written


@pytest.mark.parametrize("out", ["file", "file/run", "x" * 300, "/proc/run"])
def test_a_folder_that_cannot_be_made_is_named(out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").touch()
    folder = tmp_path / out
    (tmp_path / "train.py").touch()
    words = ["run", "table1", "--out", str(folder), "--script", str(tmp_path / "train.py"), "--pairs", "1e-4/1e-4"]
    words += ["--losses", "hinge"]
    assert f"{folder}" in refusal(capsys, lambda: sweep.main(words))
