"""What goes wrong around a training: other runs' folders, two at once, damaged files, full disks."""

from __future__ import annotations

import math
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from trained import assert_equal, contents, flip, refusal, train
from training import batches, checkpoints, files
from training.errors import RefusedError
from wang2019 import train as loop

NEWEST, BEFORE = "iteration-00000002.pt", "iteration-00000001.pt"
SHORT = ("--iterations", "2", "--checkpoint-every", "1", "--log-every", "1")
GO_ON = (*SHORT, "--resume", "auto")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("runs") / "finished", *SHORT)


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Refuse to write files of more bytes than that, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# Folders of other runs


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_run_does_not_go_on_in_the_folder_of_another_one(
    force: list[str], finished: Path, run: Path, capsys: pytest.CaptureFixture[str]
):
    before, chosen = contents(run), finished / "checkpoints" / BEFORE
    message = refusal(capsys, lambda: train(run, *SHORT, "--resume", str(chosen), *force))
    assert f"{run} is not empty, and {chosen} is not a checkpoint of the run in it" in message
    message = refusal(capsys, lambda: train(run, *SHORT, *force))
    assert f"{run} is not empty; choose another --out, or continue by --resume auto" in message
    assert contents(run) == before


def test_two_trainings_do_not_share_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    messages, centred = [], batches.centred

    def train_in_between(pixels: Tensor) -> Tensor:
        messages.append(refusal(capsys, lambda: train(tmp_path / "run", *GO_ON)))
        return centred(pixels)

    monkeypatch.setattr(loop, "centred", train_in_between)
    train(tmp_path / "run", *SHORT)
    assert messages == [f"{tmp_path / 'run'} is in use by another training\n"] * 2


@pytest.mark.parametrize("out", ["file", "file/run", "x" * 300, "/proc/run"])
def test_a_folder_that_cannot_be_made_is_named(out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").touch()
    assert f"{tmp_path / out}" in refusal(capsys, lambda: train(tmp_path / out, *SHORT))


# Damaged checkpoints


def lose(path: Path, state: dict[str, Any]) -> None:
    state["adam_generator"]["state"][0]["exp_avg"][0] = math.nan
    torch.save(state, path)


def truncate(path: Path, state: dict[str, Any]) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def change(**parts: object) -> Callable[[Path, dict[str, Any]], None]:
    return lambda path, state: torch.save(state | parts, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path, state: flip(path, state["generator"]["0.weight"]), "does not match its checksum"),
        (lose, "numbers in adam_generator.state.0.exp_avg are not finite"),
        (truncate, "cannot be read: it is damaged or of another kind: "),
        (change(iteration=-2), "is not a checkpoint of these scripts"),
        (change(iteration="two"), "is not a checkpoint of these scripts"),
        (change(configuration=3), "is not a checkpoint of these scripts"),
        (lambda path, state: torch.save([1], path), "is not a checkpoint of these scripts"),
        (lambda path, state: torch.save({"model": torch.zeros(1)}, path), "is not a checkpoint of these scripts"),
        (lambda path, state: torch.save({"code": Path("x")}, path), "cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_gives_way_to_the_one_before(
    damage: Callable[[Path, dict[str, Any]], None],
    message: str,
    finished: Path,
    run: Path,
    capsys: pytest.CaptureFixture[str],
):
    newest = run / "checkpoints" / NEWEST
    damage(newest, torch.load(newest, weights_only=True))
    refused = refusal(capsys, lambda: train(run, *SHORT, "--resume", str(newest)))
    assert message in refused
    assert str(newest) in refused
    train(run, *GO_ON)
    assert f"Warning: {newest} " in capsys.readouterr().err
    assert_equal(checkpoints.read(newest), checkpoints.read(finished / "checkpoints" / NEWEST))


def test_no_flipped_bit_changes_what_is_loaded(tmp_path: Path):
    state = {"weights": torch.arange(20.0), "configuration": {"order": (1, [2.5, "x"])}, "paper": "x", "iteration": 3}
    path = tmp_path / "x.pt"
    torch.save(state, path)
    content, refused = path.read_bytes(), 0
    for place in range(0, len(content), 5):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        try:
            found = checkpoints.read(path)
        except RefusedError:
            refused += 1
        else:
            assert_equal(found, state)
    assert refused > len(content) / 10  # the others are where a zip file has nothing


@pytest.mark.parametrize(
    "parts",
    [
        {"adam_generator": "x"},
        {"adam_discriminator": {"state": [], "param_groups": 1}},
        {"generator": [1]},
        {"average": {}},
        {"randomness": {"noise": 1}},
        {"randomness": {"noise": torch.zeros(3), "cpu": torch.zeros(3), "cuda": []}},
        {"configuration": {"seed": "0"}},
    ],
)
def test_wrong_parts_of_a_checkpoint_are_explained(
    parts: dict[str, object], run: Path, capsys: pytest.CaptureFixture[str]
):
    newest = run / "checkpoints" / NEWEST
    torch.save(torch.load(newest, weights_only=True) | parts, newest)
    before = contents(run)
    message = refusal(capsys, lambda: train(run, *GO_ON))
    assert str(newest) in message
    assert "Traceback" not in message
    assert contents(run) == before


def test_a_missing_part_of_a_checkpoint_and_another_paper_are_named(run: Path, capsys: pytest.CaptureFixture[str]):
    newest = run / "checkpoints" / NEWEST
    state = torch.load(newest, weights_only=True)
    torch.save({name: part for name, part in state.items() if name != "average"}, newest)
    assert "there is no 'average'" in refusal(capsys, lambda: train(run, *GO_ON))
    torch.save(state | {"paper": "arbel2018"}, newest)
    message = refusal(capsys, lambda: train(run, *GO_ON, "--force"))
    assert f"{newest}: expected paper 'wang2019', got 'arbel2018'" in message


def test_a_folder_of_damaged_checkpoints_is_refused(run: Path, capsys: pytest.CaptureFixture[str]):
    for path in checkpoints.newest_first(run / "checkpoints"):
        path.write_bytes(b"")
    assert "can be read; move this folder away to start anew" in refusal(capsys, lambda: train(run, *GO_ON))


def test_checkpoints_of_an_abandoned_run_and_nothing_else_are_deleted(tmp_path: Path):
    for iteration in (2, 4, 6, 8, 9, 10):
        checkpoints.path_of(tmp_path, iteration).touch()
    (tmp_path / "best.pt").touch()
    checkpoints.tidy(tmp_path, 10, keep_every=4)
    assert [checkpoints.iteration_of(path) for path in checkpoints.newest_first(tmp_path)] == [10, 9, 8, 4]
    checkpoints.path_of(tmp_path, 5).touch()
    checkpoints.tidy(tmp_path, 5, keep_every=4)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["best.pt", "iteration-00000004.pt", "iteration-00000005.pt"]


# Damaged logs and leftovers


@pytest.mark.parametrize("line", ["", "{", "[1]", '{"loss": 1}', '{"iteration": "1"}', "\xff"])
def test_a_broken_line_of_a_log_is_named_and_nothing_is_lost(line: str, run: Path, capsys: pytest.CaptureFixture[str]):
    log = run / "log.jsonl"
    first, *others = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([first, line.encode("latin1"), b"\n", *others]))
    (run / "another.jsonl").write_text('{"iteration": 3}\n')
    before = contents(run)
    assert f"{log}, line 2: expected " in refusal(capsys, lambda: train(run, *GO_ON))
    assert contents(run) == before


def test_what_killed_processes_have_left_is_removed_and_nothing_else(finished: Path, run: Path):
    names = ("samples/iteration-00000002.png", f"checkpoints/{NEWEST}", "configuration.json", "log.jsonl")
    left = [run / f"{name}.123.partial" for name in names]
    others = [run / "evaluations" / "x.json.123.partial", run / "run.json.123.partial"]
    (run / "evaluations").mkdir()
    for path in (*left, *others):
        path.touch()
    with (run / "log.jsonl").open("a") as log:
        log.write('{"iteration": 3, "lo')  # a process was killed while it wrote
    train(run, *GO_ON)
    assert [path for path in (*left, *others) if path.exists()] == others
    assert (run / "log.jsonl").read_bytes() == (finished / "log.jsonl").read_bytes()


# Where nothing can be written


def test_a_full_disk_is_explained_and_what_was_saved_stays(run: Path, capsys: pytest.CaptureFixture[str]):
    before = contents(run / "checkpoints")
    size = min(map(len, before.values()))
    with files_up_to(size - 1):
        message = refusal(capsys, lambda: train(run, *GO_ON, "--iterations", "3"), status=1)
    assert f"{run / 'checkpoints' / 'iteration-00000003.pt'} cannot be written: " in message
    assert contents(run / "checkpoints") == before
    train(run, *GO_ON, "--iterations", "3")


@pytest.mark.parametrize(
    ("size", "name", "status"), [(100, "configuration.json", 2), (1100, "samples/iteration-00000000.png", 1)]
)
def test_a_disk_that_is_full_at_the_start_is_explained(
    size: int, name: str, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with files_up_to(size):
        message = refusal(capsys, lambda: train(tmp_path / "run", *SHORT), status)
    assert f"{tmp_path / 'run' / name} cannot be written: " in message
    assert list(tmp_path.rglob("*.partial")) == []
    assert (tmp_path / "run").exists() == (status == 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_a_log_that_cannot_grow_is_named(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    opened = Path.open

    def full(path: Path, mode: str = "r", **options: Any) -> Any:
        return opened(Path("/dev/full") if (path.name, mode) == ("log.jsonl", "a") else path, mode, **options)

    monkeypatch.setattr(Path, "open", full)
    message = refusal(capsys, lambda: train(run, *GO_ON, "--iterations", "3"), status=1)
    assert message == f"{run / 'log.jsonl'} cannot be written: [Errno 28] No space left on device\n"


def test_a_file_is_replaced_in_full_or_not_at_all(tmp_path: Path):
    path = tmp_path / "new" / "file"
    files.write_text(path, "first λ\n")
    assert path.read_bytes() == "first λ\n".encode()
    with pytest.raises(UnicodeEncodeError):
        files.write_text(path, "a lone surrogate \ud800")
    assert path.read_bytes() == "first λ\n".encode()
    assert list(path.parent.iterdir()) == [path]
