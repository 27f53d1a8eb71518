"""Checkpoints: always complete, two kept, and files that are none refused; and the random states in them."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from dcgan import randomness
from dcgan.checkpoints import CheckpointError, Checkpoints, load


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints")


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())


def test_a_checkpoint_returns_its_state(checkpoints: Checkpoints):
    state = {"weights": torch.arange(3.0), "settings": {"seed": 1, "lambda_": None}, "order": (1, [2.5, "x"])}
    loaded = load(checkpoints.save(7, state))
    assert torch.equal(loaded.pop("weights"), state.pop("weights"))
    assert loaded.pop("format")
    assert loaded == {"iteration": 7, **state}


def test_the_newest_two_are_kept_and_nothing_else_is_deleted(checkpoints: Checkpoints):
    assert checkpoints.newest() == (None, [])
    checkpoints.save(1, {})
    (checkpoints.folder / "best.pt").touch()
    (checkpoints.folder / "iteration-00000001.pt.123.partial").touch()  # of a process that was killed
    for iteration in (2, 10, 300):
        checkpoints.save(iteration, {})
    assert names(checkpoints) == ["best.pt", "iteration-00000010.pt", "iteration-00000300.pt"]
    found, complaints = checkpoints.newest()
    assert found is not None
    assert (found["iteration"], complaints) == (300, [])


def test_milestones_stay_besides_the_newest_two(tmp_path: Path):
    kept = Checkpoints(tmp_path / "checkpoints", keep_every=4)
    for iteration in (2, 4, 6, 8, 9, 10):
        kept.save(iteration, {})
    assert names(kept) == [f"iteration-{iteration:08d}.pt" for iteration in (4, 8, 9, 10)]
    # A run that goes on from an earlier checkpoint leaves none of the one that it abandons.
    kept.save(5, {})
    assert names(kept) == [f"iteration-{iteration:08d}.pt" for iteration in (4, 5)]


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[: len(data) // 2], lambda data: b""])
def test_a_truncated_checkpoint_gives_way_to_the_one_before(checkpoints: Checkpoints, damage):
    checkpoints.save(10, {"weights": torch.randn(1000)})
    newest = checkpoints.save(20, {"weights": torch.randn(1000)})
    newest.write_bytes(damage(newest.read_bytes()))
    with pytest.raises(CheckpointError, match=f"{newest} cannot be read, it is truncated or no checkpoint: "):
        load(newest)
    found, complaints = checkpoints.newest()
    assert found is not None
    assert found["iteration"] == 10
    assert len(complaints) == 1
    assert str(newest) in complaints[0]


def test_nothing_is_found_where_all_are_damaged(checkpoints: Checkpoints):
    for iteration in (1, 2):
        checkpoints.save(iteration, {}).write_text("not a checkpoint")
    found, complaints = checkpoints.newest()
    assert found is None
    assert len(complaints) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "is no checkpoint of these scripts"),
        ({"model": torch.zeros(1)}, "is no checkpoint of these scripts"),
        ({"format": "torch-mmd-losses dcgan checkpoint 0"}, "checkpoint 0'; this version reads '.* 1'"),
        ({"format": Path("code")}, "cannot be read"),
    ],
)
def test_foreign_files_are_refused(content: object, message: str, tmp_path: Path):
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "file.pt")


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"^There is no checkpoint .*none\.pt$"):
        load(tmp_path / "none.pt")


def test_a_failed_write_leaves_what_was_there(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch):
    checkpoints.save(1, {})

    def full(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        checkpoints.save(2, {})
    assert names(checkpoints) == ["iteration-00000001.pt"]


def test_all_generators_go_on_where_they_were(checkpoints: Checkpoints):
    def draw() -> tuple[float, ...]:
        return (random.random(), random.gauss(0, 1), np.random.normal(), torch.randn(()).item())

    randomness.seed(3)
    seeded = draw()
    randomness.seed(3)
    assert draw() == seeded
    draw()  # leaves half of a pair of normal numbers in two of the generators
    loaded = load(checkpoints.save(1, randomness.state()))
    first = draw()
    assert draw() != first
    randomness.restore(loaded)
    assert draw() == first
