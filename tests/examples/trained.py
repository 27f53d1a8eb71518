"""Small trainings for tests, and the comparison of what they leave behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from training import checkpoints
from training.files import read_lines
from wang2019.train import main

SHORT = ("--checkpoint-every", "2", "--log-every", "1", "--sample-every", "2")


def train(folder: Path, *options: str) -> Path:
    """Run the smallest training, on generated images."""
    return main(["fake", "--out", str(folder), "--quiet", "--device", "cpu", *options])


def refusal(capsys: pytest.CaptureFixture[str], command: Callable[[], object], status: int = 2) -> str:
    """Return what a command that has to exit with a status says."""
    capsys.readouterr()
    with pytest.raises(SystemExit, match=f"^{status}$"):
        command()
    return capsys.readouterr().err


def newest(folder: Path) -> Path:
    return checkpoints.newest_first(folder / "checkpoints")[0]


def last_state(folder: Path) -> dict[str, Any]:
    return checkpoints.read(newest(folder))


def log(folder: Path) -> list[dict[str, Any]]:
    """Read the log of a run but the speed."""
    return [{**line, "iterations_per_second": 0} for line in read_lines(folder / "log.jsonl")]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def flip(path: Path, weight: torch.Tensor) -> None:
    """Flip a bit of a weight in a file."""
    content = bytearray(path.read_bytes())
    content[content.index(weight.detach().numpy().tobytes()) + 3] ^= 1
    path.write_bytes(content)


def assert_same_run(first: Path, second: Path) -> None:
    """Compare all that two runs have left behind, bit for bit."""
    assert_equal(last_state(first), last_state(second))
    assert log(first) == log(second)
    assert contents(first / "samples") == contents(second / "samples")


def assert_equal(first: object, second: object) -> None:
    """Compare nested containers of tensors and numbers bit for bit."""
    if isinstance(first, torch.Tensor):
        torch.testing.assert_close(first, second, rtol=0, atol=0)
    elif isinstance(first, dict):
        assert isinstance(second, dict)
        assert first.keys() == second.keys()
        for key in first:
            assert_equal(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert isinstance(second, list | tuple)
        for one, other in zip(first, second, strict=True):
            assert_equal(one, other)
    else:
        assert first == second
