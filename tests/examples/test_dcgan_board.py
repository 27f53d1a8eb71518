"""The log and the samples for TensorBoard: the same numbers as in log.jsonl, and no iteration twice."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from dcgan.board import Board
from dcgan.record import read_log
from test_dcgan_training import refusal, train

SHORT = ["--tensorboard", "--log-every", "2", "--sample-every", "4", "--checkpoint-every", "2"]


class Writer:
    """Stands in for SummaryWriter, since TensorBoard need not be installed."""

    made: list[Writer]

    def __init__(self, folder: str, purge_step: int) -> None:
        self.folder, self.purge_step = folder, purge_step
        self.scalars: dict[tuple[str, int], float] = {}
        self.images: dict[tuple[str, int], tuple[int, ...]] = {}
        self.made.append(self)

    def add_scalar(self, label: str, number: float, iteration: int) -> None:
        self.scalars[label, iteration] = number

    def add_image(self, label: str, image: Any, iteration: int, dataformats: str) -> None:
        assert dataformats == "HWC"
        self.images[label, iteration] = image.shape

    def flush(self) -> None:
        """Do nothing."""


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[Writer]:
    monkeypatch.setattr(Writer, "made", [], raising=False)
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return Writer.made


def expected(folder: Path) -> dict[tuple[str, int], float]:
    numbers = {}
    for line in read_log(folder / "log.jsonl"):
        iteration = line.pop("iteration")
        norms = line.pop("sigma")
        numbers |= {(name, iteration): number for name, number in line.items() if number is not None}
        numbers |= {(f"sigma/{layer}", iteration): number for layer, number in norms.items()}
    return numbers


def test_tensorboard_gets_the_numbers_of_the_log_and_the_samples(writers: list[Writer], tmp_path: Path):
    folder = train(tmp_path / "run", *SHORT, "--iterations", "4")
    train(folder, *SHORT, "--iterations", "6", "--resume", "auto")
    assert [writer.folder for writer in writers] == [str(folder / "tensorboard")] * 2
    assert [writer.purge_step for writer in writers] == [1, 5]
    assert writers[0].scalars | writers[1].scalars == expected(folder)
    assert {step for _, step in writers[0].scalars} == {1, 2, 4}
    assert {step for _, step in writers[1].scalars} == {6}
    assert writers[0].images == {("samples", 0): (288, 288, 3), ("samples", 4): (288, 288, 3)}
    assert writers[1].images == {("samples", 6): (288, 288, 3)}


def test_grey_sheets_have_a_channel_and_missing_norms_are_left_out(writers: list[Writer], tmp_path: Path):
    board = Board(tmp_path, 0)
    board.draw(SimpleNamespace(__array_interface__=torch.zeros(4, 5).byte().numpy().__array_interface__), 7)
    board.log({"iteration": 7, "gradient_norm_generator": None, "loss": 0.5})
    assert writers[0].images == {("samples", 7): (4, 5, 1)}
    assert writers[0].scalars == {("loss", 7): 0.5}


def test_nothing_is_written_for_tensorboard_unless_it_is_asked_for(writers: list[Writer], tmp_path: Path):
    train(tmp_path / "run", "--iterations", "1")
    assert writers == []


def test_a_missing_tensorboard_is_named_at_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    message = refusal(capsys, tmp_path / "run", "--tensorboard")
    assert "tensorboard: the package cannot be imported" in message
    assert "pip install tensorboard, or go without --tensorboard" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("default")  # other projects' warnings
def test_tensorboard_reads_what_is_written(tmp_path: Path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = train(tmp_path / "run", *SHORT, "--iterations", "6")
    # The iterations after the checkpoint that is resumed from are not shown twice.
    chosen = folder / "checkpoints" / "iteration-00000004.pt"
    train(folder, *SHORT, "--iterations", "6", "--resume", str(chosen))
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss_generator")] == [1, 2, 4, 6]
    assert [event.step for event in events.Images("samples")] == [0, 4, 6]
    read = {(tag, event.step): event.value for tag in events.Tags()["scalars"] for event in events.Scalars(tag)}
    assert read == pytest.approx(expected(folder), rel=1e-6)
