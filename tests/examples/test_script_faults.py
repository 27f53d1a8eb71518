"""What goes wrong around the scripts: other runs' folders, two at once, damaged files, full disks, changed images."""

from __future__ import annotations

import fcntl
import math
import multiprocessing
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import smmd_fake
import smmd_spectra
import torch
from dcgan import gan, prepared, script
from dcgan.atomic import NotWrittenError, append_text
from dcgan.checkpoints import Checkpoints, load
from dcgan.locks import InUseError, owned
from PIL import Image
from test_dcgan_training import assert_equal

pytestmark = pytest.mark.xdist_group("processes")

NEWEST, BEFORE = "iteration-00000002.pt", "iteration-00000001.pt"


def train(folder: Path, *options: str) -> Path:
    """Train for two iterations, with a checkpoint of each."""
    short = ["--iterations", "2", "--checkpoint-every", "1", "--log-every", "1", "--quiet", "--device", "cpu"]
    return script.main("fake", "Train.", ["--out", str(folder), *short, *options])


def refusal(capsys: pytest.CaptureFixture[str], command: Callable[[], object], status: str = "2") -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit, match=status) as end:
        command()
    return capsys.readouterr().err + str(end.value)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("runs") / "finished")


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
    before = contents(run)
    chosen = finished / "checkpoints" / BEFORE
    message = refusal(capsys, lambda: train(run, "--resume", str(chosen), *force))
    assert f"{run} is not empty, and {chosen} is not a checkpoint of the run in it" in message
    assert contents(run) == before


def train_for_long(folder: str) -> None:
    train(Path(folder), "--iterations", "1000000", "--checkpoint-every", "1000000")


@pytest.mark.slow
def test_two_processes_do_not_train_in_one_folder_and_a_killed_one_leaves_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "run"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "torch.nn.parallel", "torch.distributed.fsdp"])
    other = context.Process(target=train_for_long, args=(str(folder),))
    other.start()
    try:
        while not (folder / "log.jsonl").exists():
            assert other.is_alive()
            time.sleep(0.01)
        before = (folder / "configuration.json").read_bytes()
        for resume in ([], ["--resume", "auto"]):
            message = refusal(capsys, lambda resume=resume: train(folder, *resume))
            assert f"{folder} is in use by another process" in message
        assert (folder / "configuration.json").read_bytes() == before
        assert other.is_alive()
    finally:
        other.kill()
        other.join()
    train(folder, "--resume", "auto")
    assert (folder / "checkpoints" / NEWEST).exists()


def test_one_process_does_not_train_twice_in_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    step: Callable[..., gan.Step] = gan.GAN.step
    messages = []

    def train_in_between(self: gan.GAN, real: torch.Tensor) -> gan.Step:
        messages.append(refusal(capsys, lambda: train(tmp_path / "run", "--resume", "auto")))
        return step(self, real)

    monkeypatch.setattr(gan.GAN, "step", train_in_between)
    train(tmp_path / "run")
    assert len(messages) == 2
    assert f"{tmp_path / 'run'} is in use by another process" in messages[0]


def test_a_lock_that_another_process_has_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    flock = fcntl.flock

    def late(descriptor: int, kind: int) -> None:
        (tmp_path / "run" / "training.lock").unlink()
        flock(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(InUseError, match="is in use"), owned(tmp_path / "run"):
        pass


def test_a_refused_run_leaves_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    refusal(capsys, lambda: train(tmp_path / "new" / "run", "--batch-size", "1000"))
    assert not (tmp_path / "new" / "run").exists()


# Damaged checkpoints


def flip(path: Path, state: dict[str, Any]) -> None:
    """Flip a bit of a weight."""
    weight = state["generator"]["0.weight"].numpy().tobytes()
    content = bytearray(path.read_bytes())
    content[content.index(weight) + 3] ^= 1
    path.write_bytes(content)


def lose(path: Path, state: dict[str, Any]) -> None:
    state["adam_generator"]["state"][0]["exp_avg"][0] = math.nan
    torch.save(state, path)


def go_negative(path: Path, state: dict[str, Any]) -> None:
    torch.save(state | {"iteration": -2}, path)


def say_it_in_words(path: Path, state: dict[str, Any]) -> None:
    torch.save(state | {"iteration": "two"}, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip, "does not match its checksum"),
        (lose, "numbers in adam_generator.state.0.exp_avg are not finite"),
        (go_negative, "expected an iteration >= 0, got -2"),
        (say_it_in_words, "expected an iteration >= 0, got 'two'"),
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
    refused = refusal(capsys, lambda: train(run, "--resume", str(newest)))
    assert message in refused
    assert str(newest) in refused
    train(run, "--resume", "auto")
    assert f"Warning: {newest} " in capsys.readouterr().err
    assert_equal(load(newest), load(finished / "checkpoints" / NEWEST))


def test_no_flipped_bit_changes_what_is_loaded(tmp_path: Path):
    state = {"weights": torch.arange(20.0), "settings": {"seed": 1, "order": (1, [2.5, "x"])}}
    checkpoints = Checkpoints(tmp_path)
    path = checkpoints.save(3, state)
    content, expected, refused = path.read_bytes(), load(path), 0
    for place in range(0, len(content), 5):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        found, complaints = checkpoints.newest()
        if complaints:
            assert str(path) in complaints[0]
            refused += 1
        else:
            assert_equal(found, expected)
    assert refused > len(content) / 10  # the others are where a zip file has nothing


@pytest.mark.parametrize(
    "parts",
    [
        {"adam_generator": "x"},
        {"adam_discriminator": {"state": [], "param_groups": 1}},
        {"generator": [1]},
        {"batches": 3},
        {"batches": {"images": 256, "seed": 0, "epoch": -1, "batch": 0}},
        {"random": {"python": 1}},
        {"noise": torch.zeros(3)},
    ],
)
def test_wrong_types_in_a_checkpoint_are_explained(
    parts: dict[str, object], run: Path, capsys: pytest.CaptureFixture[str]
):
    newest = run / "checkpoints" / NEWEST
    torch.save(torch.load(newest, weights_only=True) | parts, newest)
    message = refusal(capsys, lambda: train(run, "--resume", str(newest)))
    assert "The checkpoint does not fit this configuration: " in message
    assert str(newest) in message


def test_a_missing_part_of_a_checkpoint_is_named(run: Path, capsys: pytest.CaptureFixture[str]):
    newest = run / "checkpoints" / NEWEST
    state = torch.load(newest, weights_only=True)
    del state["batches"]
    torch.save(state, newest)
    assert "there is no 'batches'" in refusal(capsys, lambda: train(run, "--resume", "auto"))


@pytest.mark.parametrize("name", ["smmd", ["dcgan"]])
def test_a_checkpoint_of_another_experiment_is_refused_even_if_forced(
    name: object, run: Path, capsys: pytest.CaptureFixture[str]
):
    newest = run / "checkpoints" / NEWEST
    torch.save(torch.load(newest, weights_only=True) | {"experiment": name}, newest)
    message = refusal(capsys, lambda: train(run, "--resume", "auto", "--force"))
    assert f"The checkpoint is of the experiment {name!r}, expected 'dcgan'" in message


def test_a_checkpoint_of_the_other_paper_is_refused_even_if_forced(run: Path, capsys: pytest.CaptureFixture[str]):
    words = ["--out", str(run), "--resume", "auto", "--force", "--quiet", "--device", "cpu"]
    message = refusal(capsys, lambda: smmd_fake.main(words))
    assert "The checkpoint is of the experiment 'dcgan', expected 'smmd'" in message


# Damaged logs and records


@pytest.mark.parametrize("line", ["", "{", "[1]", '{"loss": 1}', '{"iteration": "1"}', "\xff"])
def test_a_broken_line_of_a_log_is_named_and_nothing_is_lost(line: str, run: Path, capsys: pytest.CaptureFixture[str]):
    log = run / "log.jsonl"
    first, *others = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([first, line.encode("latin1"), b"\n", *others]))
    before = contents(run)
    assert f"{log}, line 2: expected " in refusal(capsys, lambda: train(run, "--resume", "auto"))
    assert contents(run) == before
    shutil.copy(log, run / "singular_values.jsonl")
    assert "singular_values.jsonl, line 2: " in refusal(capsys, lambda: smmd_spectra.main([str(run)]))


# Images


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    root.mkdir()
    for number in range(3):
        Image.new("RGB", (40, 40), (number * 80, 9, 9)).save(root / f"{number}.png")
    return root


def train_on(root: Path, folder: Path, *options: str) -> Path:
    return train(folder, "--dataset", "folder", "--data-root", str(root), "--batch-size", "2", *options)


def add_a_picture(root: Path) -> None:
    Image.new("RGB", (40, 40)).save(root / "3.png")


def delete_a_picture(root: Path) -> None:
    (root / "0.png").unlink()


def rename_a_picture(root: Path) -> None:
    (root / "0.png").rename(root / "9.png")


def replace_a_picture(root: Path) -> None:
    path = root / "0.png"
    before = path.stat()
    content = bytearray(path.read_bytes())
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def forget_the_files(root: Path) -> None:
    (root / "prepared" / "folder-3x32x32.files").unlink()


@pytest.mark.parametrize(
    "change", [add_a_picture, delete_a_picture, rename_a_picture, replace_a_picture, forget_the_files]
)
def test_prepared_images_of_a_folder_that_has_changed_are_refused(
    change: Callable[[Path], None], pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    train_on(pictures, tmp_path / "run")
    train_on(pictures, tmp_path / "run", "--resume", "auto")
    change(pictures)
    array = pictures / "prepared" / "folder-3x32x32.npy"
    message = refusal(capsys, lambda: train_on(pictures, tmp_path / "run", "--resume", "auto"))
    assert f"{array} was prepared from other images than are there now; delete it" in message
    array.unlink()
    train_on(pictures, tmp_path / "other")
    assert len(np.load(array)) == len(list(pictures.glob("*.png")))


def test_prepared_images_suffice_without_those_that_they_were_made_of(pictures: Path, tmp_path: Path):
    train_on(pictures, tmp_path / "run")
    for path in pictures.glob("*.png"):
        path.unlink()
    train_on(pictures, tmp_path / "other")


@pytest.mark.parametrize("size", [0, 50, 3000])
def test_truncated_prepared_images_are_named(
    size: int, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    train_on(pictures, tmp_path / "run")
    array = pictures / "prepared" / "folder-3x32x32.npy"
    array.write_bytes(array.read_bytes()[:size])
    assert f"{array} is damaged (" in refusal(capsys, lambda: train_on(pictures, tmp_path / "other"))


@pytest.mark.parametrize("size", [0, 90])
def test_a_picture_that_cannot_be_read_is_named(
    size: int, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    Image.effect_noise((64, 64), 50).save(pictures / "1.png")
    (pictures / "1.png").write_bytes((pictures / "1.png").read_bytes()[:size])
    message = refusal(capsys, lambda: train_on(pictures, tmp_path / "run"))
    assert f"{pictures / '1.png'} cannot be read as an image" in message
    assert list((pictures / "prepared").glob("*.npy*")) == []


def test_an_image_of_another_shape_is_not_prepared(tmp_path: Path):
    with pytest.raises(ValueError, match="shape"):
        prepared.write([np.zeros((3, 4, 4), np.uint8)], (3, 8, 8), tmp_path / "x.npy", print)


# Where nothing can be written


@pytest.mark.parametrize("out", ["file", "file/run", "x" * 300, "/proc/run"])
def test_a_folder_that_cannot_be_made_is_named(out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").touch()
    folder = tmp_path / out
    assert f"{folder}/training.lock cannot be written: " in refusal(capsys, lambda: train(folder))


def test_a_full_disk_is_explained_and_what_was_saved_stays(run: Path, capsys: pytest.CaptureFixture[str]):
    before = contents(run / "checkpoints")
    size = min(map(len, before.values()))
    with files_up_to(size - 1):
        message = refusal(capsys, lambda: train(run, "--resume", "auto", "--iterations", "3"), "cannot be written")
    assert f"{run / 'checkpoints' / 'iteration-00000003.pt'} cannot be written: " in message
    assert "--resume auto" in message
    assert contents(run / "checkpoints") == before
    train(run, "--resume", "auto", "--iterations", "3")


def test_a_disk_that_is_full_at_the_start_is_explained(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with files_up_to(100):
        assert "configuration.json cannot be written" in refusal(capsys, lambda: train(tmp_path / "run"))
        assert "npy cannot be written" in refusal(capsys, lambda: train_on(pictures, tmp_path / "other"))
    with files_up_to(3000):
        message = refusal(capsys, lambda: train(tmp_path / "run"), "cannot be written")
    assert f"{tmp_path / 'run' / 'samples' / 'iteration-00000000.png'} cannot be written" in message
    assert list(tmp_path.rglob("*.partial")) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_a_log_that_cannot_grow_is_named():
    with pytest.raises(NotWrittenError, match="/dev/full cannot be written: .*No space left on device"):
        append_text(Path("/dev/full"), "line\n")


def test_what_killed_processes_have_left_is_removed_at_the_next_start(run: Path):
    left = [
        run / f"{name}.123.partial" for name in ("samples/iteration-00000002.png", "configuration.json", "log.jsonl")
    ]
    others = [run / "evaluations" / "x.json.123.partial", run / "run.json.123.partial"]
    (run / "evaluations").mkdir()
    for path in (*left, *others):
        path.touch()
    train(run, "--resume", "auto")
    assert [path for path in (*left, *others) if path.exists()] == others


# Devices


def test_a_device_without_numbers_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    message = refusal(capsys, lambda: train(tmp_path / "run", "--device", "meta"))
    assert "device: expected one that computes, such as cpu or cuda; got meta" in message
    assert not (tmp_path / "run").exists()
