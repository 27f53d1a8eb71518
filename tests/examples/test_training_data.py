"""The data of the experiments: batches that go on from anywhere, data sets, and what is missing."""

from __future__ import annotations

import ast
import gzip
import importlib.util
import io
import multiprocessing
import pickle
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import training
from arbel2018 import data as arbel2018
from hypothesis import given
from hypothesis import strategies as st
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor
from trained import SHORT, log, refusal, train
from training import images
from training.batches import batches, centred, positions, to_pixels
from training.errors import RefusedError
from training.files import read_lines
from training.images import READERS, Images, load
from training.settings import Settings

EXAMPLES = Path(__file__).parents[2] / "examples"

# Batches


def numbered(count: int) -> Tensor:
    return torch.arange(count, dtype=torch.uint8).reshape(count, 1, 1, 1)


def drawn(count: int, size: int, steps: int, *, start: int = 0, workers: int = 0, seed: int = 0) -> list[list[int]]:
    """Draw batches of numbered images by one process."""
    fabric = Fabric(accelerator="cpu", devices=1)
    settings = Settings(out=Path(), dataset="fake", seed=seed, workers=workers)
    stream = batches(numbered(count), size, settings, fabric=fabric, start=start)
    return [next(stream).flatten().tolist() for _ in range(steps)]


def test_an_epoch_has_every_image_once_and_each_epoch_its_own_order():
    epochs = [np.ravel(drawn(12, 4, 3, start=start)).tolist() for start in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert epochs[0] != np.ravel(drawn(12, 4, 3, seed=1)).tolist()


def test_a_short_last_batch_is_left_out():
    found = drawn(10, 4, 10)
    assert all(len(set(found[each] + found[each + 1])) == 8 for each in range(0, 10, 2))


@given(st.integers(1, 9), st.integers(0, 30), st.integers(0, 2**32 - 1))
def test_batches_go_on_from_any_position_as_if_never_interrupted(size: int, before: int, seed: int):
    whole = positions(9, size, seed=seed)
    for _ in range(before):
        next(whole)
    later = positions(9, size, seed=seed, start=before)
    assert [next(later) for _ in range(12)] == [next(whole) for _ in range(12)]


@given(st.integers(0, 20), st.sampled_from([1, 2, 3, 6]))
def test_processes_share_the_batches_of_one(before: int, world: int):
    alone = positions(20, 6, seed=3, start=before)
    shares = [positions(20, 6, seed=3, start=before, rank=rank, world_size=world) for rank in range(world)]
    for _ in range(8):
        joint, parts = next(alone), [next(share) for share in shares]
        assert [part[row] for row in range(6 // world) for part in parts] == joint


def test_workers_read_the_same_batches():
    assert drawn(9, 4, 5, start=3, workers=2) == drawn(9, 4, 5, start=3)


def test_what_makes_no_batch_is_refused():
    with pytest.raises(RefusedError, match="batch_size: expected at most the number of images, 3; got 4"):
        drawn(3, 4, 1)


def test_bytes_become_numbers_from_minus_one_to_one_and_bytes_again():
    pixels = torch.arange(256).byte()
    found = centred(pixels)
    assert found.dtype == torch.float32
    assert (found.min(), found.max()) == (-1, 1)
    assert torch.equal(to_pixels(found), pixels)
    assert to_pixels(torch.tensor([-1.5, 2.0])).tolist() == [0, 255]


# What is missing


def test_all_missing_packages_are_named_at_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    installed = {"tqdm", "tyro"}
    monkeypatch.setattr(training, "find_spec", lambda name: name if name in installed else None)
    training.need("tqdm", "tyro", also=["torchvision"])
    message = refusal(capsys, lambda: training.need("tyro", "PIL", "lightning_fabric", also=["torchvision"]))
    assert "Not installed: PIL, lightning_fabric, torchvision. Keep your PyTorch" in message
    assert 'pip install --constraint torch.txt -e ".[paper]"' in message


EVERYWHERE = {*sys.stdlib_module_names, "torch", "numpy", "matplotlib", "torch_mmd_losses"}
"""Modules that a script may import without saying which packages it needs: its page names matplotlib."""
SCRIPTS = sorted([*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*/train.py")])


def imported(script: Path) -> set[str]:
    """Return the names of all modules that `script` and the scripts that it imports import, without their parts."""
    names = set()
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    beside = {name for name in names if (EXAMPLES / f"{name}.py").is_file()}
    return (names - beside).union(*(imported(EXAMPLES / f"{name}.py") for name in beside))


NEEDY = [script for script in SCRIPTS if not imported(script) <= EVERYWHERE]
"""Scripts that need the extra `paper` or a part of it."""


def test_programs_of_a_single_file_need_nothing_but_pytorch_and_matplotlib():
    programs = {script.stem for script in SCRIPTS} - {script.stem for script in NEEDY}
    assert programs == {"drift_monitor", "drift_power", "guidance", "moment_matching", "particles"}


@pytest.mark.parametrize("script", NEEDY, ids=lambda script: str(script.relative_to(EXAMPLES)))
def test_a_script_names_all_packages_that_are_missing_before_it_imports_one(script: Path):
    done = subprocess.run([sys.executable, "-S", str(script)], capture_output=True, text=True)  # without any packages
    assert done.returncode == 2
    assert done.stderr.startswith(
        "Not installed: filelock, lightning_fabric, PIL, tqdm, tyro, matplotlib, ray, sklearn, torchmetrics, "
        "torchvision. "
    )


def test_without_torchvision_a_real_data_set_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    Image.new("RGB", (40, 40)).save(tmp_path / "x.png")
    (tmp_path / "cifar-10-batches-py").mkdir()
    monkeypatch.setitem(sys.modules, "torchvision", None)
    for dataset in ("folder", "cifar10"):
        options = ["--dataset", dataset, "--data-root", str(tmp_path)]
        message = refusal(capsys, lambda options=options: train(tmp_path / "run", *options))
        assert message.startswith("Reading this data set needs torchvision, which cannot be imported: ")
        assert "pip install --constraint torch.txt" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("dataset", "advice"),
    [
        ("cifar10", "cifar-10-python.tar.gz from .* and unpack it in"),
        ("stl10", "stl10_binary.tar.gz from .* and unpack it in"),
        ("celeba", "img_align_celeba.zip .* and unpack it in .*celeba"),
        ("lsun", "bedroom_train_lmdb.zip .* and unpack it in .* install lmdb"),
    ],
)
def test_missing_data_sets_say_what_to_download_and_where_to_put_it(dataset: str, advice: str, tmp_path: Path):
    with pytest.raises(RefusedError, match=f"There is no {tmp_path / 'data'}") as refused:
        load(dataset, tmp_path / "data", size=32, channels=3)
    assert refused.match(advice)


def test_a_folder_without_images_is_named_with_the_reason(tmp_path: Path):
    file = tmp_path / "empty" / "notes.txt"
    file.parent.mkdir()
    file.touch()
    for root, got in (
        (tmp_path / "nowhere", "a path that does not exist"),
        (file, "a file"),
        (file.parent, "a folder without any"),
    ):
        expected = re.escape(f"{root}: expected a folder with images (.bmp, .jpeg, .jpg, .png, .webp) in it or below")
        with pytest.raises(RefusedError, match=f"^{expected}, got {got}$"):
            load("folder", root, size=32, channels=3)


@pytest.mark.parametrize("dataset", ["celeba", "lsun", "folder"])
def test_data_sets_without_a_test_split_say_so(dataset: str, tmp_path: Path):
    with pytest.raises(RefusedError, match=f"split: {dataset} has no test split; cifar10, stl10, fashion-mnist have"):
        load(dataset, tmp_path, size=64, channels=3, split="test")


@pytest.mark.parametrize("size", [32, 48, 64])
def test_fake_images_are_always_the_same_and_others_in_the_test_split(size: int):
    found, again, others = (stacked(load("fake", Path(), size=size, channels=3, split=s)) for s in SPLITS)
    assert found.shape == (256, 3, size, size)
    assert found.float().std() > 60
    assert torch.equal(found, again)
    assert (found != others).float().mean() > 0.9


SPLITS = ("train", "train", "test")


def stacked(found: Images) -> Tensor:
    return found[list(range(len(found)))]


# Data sets as torchvision reads them, in the forms in which their publishers pack them


def random_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def ramp(width: int, height: int) -> Image.Image:
    """Return a picture whose red is the column and whose green is the row, in units of the whole."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([red, green, np.zeros_like(red)], axis=2).round().astype(np.uint8))


@pytest.fixture
def datasets():
    return pytest.importorskip("torchvision.datasets")


@pytest.mark.paper
@pytest.mark.parametrize(("split", "rows"), [("train", slice(0, 10)), ("test", slice(10, 12))])
def test_cifar10(split: str, rows: slice, datasets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": None})
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    expected = random_images(12, 3, 32, 32)
    for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        part = expected[2 * number : 2 * number + 2]
        (folder / name).write_bytes(pickle.dumps({"data": part.reshape(2, -1), "labels": [0, 1]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a", "b"]}))
    found = load("cifar10", tmp_path, size=32, channels=3, split=split)
    np.testing.assert_array_equal(stacked(found), expected[rows])


@pytest.mark.paper
@pytest.mark.usefixtures("datasets")
@pytest.mark.parametrize("read", [load, arbel2018.load])
def test_damaged_data_are_named(read: Callable[..., Images], tmp_path: Path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(RefusedError, match=f"cifar10 in {tmp_path} cannot be read: RuntimeError: Dataset not found"):
        read("cifar10", tmp_path, size=32, channels=3)


def test_an_error_of_a_reader_names_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(READERS, "lsun", lambda root: importlib.import_module("not_installed"))
    with pytest.raises(RefusedError, match=f"lsun in {tmp_path} cannot be read: ModuleNotFoundError: No module named"):
        load("lsun", tmp_path, size=64, channels=3)


@pytest.mark.paper
@pytest.mark.parametrize(("split", "name"), [("train", "unlabeled"), ("test", "test")])
def test_stl10(split: str, name: str, datasets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasets.STL10, "_check_integrity", lambda self: True)
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    picture = np.asarray(ramp(96, 96)).transpose(2, 0, 1)[None]
    (folder / f"{name}_X.bin").write_bytes(picture.transpose(0, 1, 3, 2).tobytes())  # columns first
    (folder / "test_y.bin").write_bytes(bytes([1]))
    (folder / "class_names.txt").write_text("a\nb\n")
    found = stacked(load("stl10", tmp_path, size=48, channels=3, split=split))
    assert found.shape == (1, 3, 48, 48)
    # Means of two neighbours of the ramp; Lanczos differs from them at the edges only.
    expected = picture[0].reshape(3, 48, 2, 48, 2).mean((2, 4))
    assert np.abs(found[0].numpy().astype(float) - expected)[:, 3:-3, 3:-3].max() <= 1.5


@pytest.mark.paper
@pytest.mark.usefixtures("datasets")
def test_celeba_is_cropped_as_the_authors_do(tmp_path: Path):
    folder = tmp_path / "celeba" / "img_align_celeba"
    folder.mkdir(parents=True)
    ramp(178, 218).save(folder / "000002.png")
    Image.new("RGB", (178, 218), (9, 8, 7)).save(folder / "000001.png")
    (folder / "readme.txt").touch()
    plain, found = stacked(load("celeba", tmp_path, size=64, channels=3))
    assert plain.shape == (3, 64, 64)
    assert plain[:, 0, 0].tolist() == [9, 8, 7]
    # Columns 4 to 67 of 72 and rows 12 to 75 of 88 remain: the middle of the ramp, whose ends show where it was cut.
    red, green = found[0, 32].float(), found[1, :, 32].float()
    assert red[[0, -1]].tolist() == pytest.approx([255 * 4.5 / 72, 255 * 67.5 / 72], abs=2)
    assert green[[0, -1]].tolist() == pytest.approx([255 * 12.5 / 88, 255 * 75.5 / 88], abs=2)


# torchvision leaves the file open in which it keeps the keys, and writes it into the working directory.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.paper
@pytest.mark.usefixtures("datasets")
def test_lsun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    lmdb = pytest.importorskip("lmdb")
    with (
        lmdb.open(str(tmp_path / "bedroom_train_lmdb"), map_size=1 << 20) as database,
        database.begin(write=True) as write,
        io.BytesIO() as file,
    ):
        ramp(341, 256).save(file, format="webp", lossless=True)
        write.put(b"000", file.getvalue())
    found = stacked(load("lsun", tmp_path, size=64, channels=3))
    assert found.shape == (1, 3, 64, 64)
    red, green = found[0, 0, 32].float(), found[0, 1, :, 32].float()
    assert red[[0, -1]].tolist() == pytest.approx([255 * 10.5 / 85, 255 * 73.5 / 85], abs=2)
    assert green[[0, -1]].tolist() == pytest.approx([255 * 0.5 / 64, 255 * 63.5 / 64], abs=2)


@pytest.mark.paper
@pytest.mark.usefixtures("datasets")
@pytest.mark.parametrize("place", [".", "debian"])
@pytest.mark.parametrize(("split", "name"), [("train", "train"), ("test", "t10k")])
def test_fashion_mnist_is_read_from_where_it_is_installed(
    place: str, split: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(images, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    with pytest.raises(RefusedError, match=r"Download the four files from .* apt install dataset-fashion-mnist"):
        load("fashion-mnist", tmp_path, size=32, channels=1)
    (tmp_path / place).mkdir(exist_ok=True)
    pictures = {each: random_images(3, 28, 28) // number for number, each in enumerate(("train", "t10k"), 1)}
    for each, array in pictures.items():
        content = struct.pack(">IIII", 0x803, *array.shape) + array.tobytes()
        (tmp_path / place / f"{each}-images-idx3-ubyte.gz").write_bytes(gzip.compress(content))
        labels = struct.pack(">II", 0x801, 3) + bytes([0, 1, 2])
        (tmp_path / place / f"{each}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    found = stacked(load("fashion-mnist", tmp_path, size=32, channels=1, split=split))
    assert found.shape == (3, 1, 32, 32)
    np.testing.assert_array_equal(found[:, 0, 2:-2, 2:-2], pictures[name])
    assert found.sum() == pictures[name].sum()  # the margin is black
    assert len(list((tmp_path / "FashionMNIST" / "raw").iterdir())) == 4


@pytest.mark.paper
@pytest.mark.usefixtures("datasets")
@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_gives_all_images_below_it_in_the_order_of_their_names(channels: int, tmp_path: Path):
    (tmp_path / "b").mkdir()
    Image.new("RGBA", (40, 70), (1, 1, 1, 255)).save(tmp_path / "b" / "x.PNG")
    Image.new("L", (90, 33), 2).save(tmp_path / "a.bmp")
    found = stacked(load("folder", tmp_path, size=32, channels=channels))
    assert found.shape == (2, channels, 32, 32)
    assert found.amax((1, 2, 3)).tolist() == [2, 1]


@pytest.mark.paper
@pytest.mark.usefixtures("datasets")
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_picture_that_cannot_be_read_is_named_and_the_run_goes_on_when_it_is_mended(
    workers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    data = tmp_path / "data"
    data.mkdir()
    for number in range(3):
        Image.effect_noise((64, 64), 50).save(data / f"{number}.png")
    whole = (data / "1.png").read_bytes()
    options = ["--dataset", "folder", "--data-root", str(data), "--batch-size", "3", *SHORT]
    train(tmp_path / "run", *options, "--iterations", "1")
    (data / "1.png").write_bytes(whole[:90])
    going_on = [*options, "--iterations", "2", "--resume", "auto", "--workers", workers]
    message = refusal(capsys, lambda: train(tmp_path / "run", *going_on), status=1)
    assert message.startswith(f"{data / '1.png'} cannot be read as an image: ")
    assert "Traceback" not in message
    assert multiprocessing.active_children() == []  # for which Python would wait at its end
    (data / "1.png").write_bytes(whole)
    train(tmp_path / "run", *going_on)
    assert [line["iteration"] for line in log(tmp_path / "run")] == [1, 2]


@pytest.mark.paper
@pytest.mark.filterwarnings("default")  # other projects' warnings
def test_tensorboard_gets_the_numbers_of_the_log_and_the_samples_and_no_iteration_twice(tmp_path: Path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = ["--tensorboard", "--log-every", "2", "--sample-every", "4", "--checkpoint-every", "2"]
    folder = train(tmp_path / "run", *options, "--iterations", "6")
    chosen = folder / "checkpoints" / "iteration-00000004.pt"
    train(folder, *options, "--iterations", "6", "--resume", str(chosen))
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Images("samples")] == [0, 4, 6]
    expected = {}
    for line in read_lines(folder / "log.jsonl"):
        iteration, norms = line.pop("iteration"), line.pop("sigma")
        numbers = line | {f"sigma/{layer}": number for layer, number in norms.items()}
        expected |= {(name, iteration): number for name, number in numbers.items()}
    read = {(tag, event.step): event.value for tag in events.Tags()["scalars"] for event in events.Scalars(tag)}
    assert {step for _, step in read} == {1, 2, 4, 6}
    assert read == pytest.approx(expected, rel=1e-6)


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is not None, reason="it is installed")
def test_a_missing_tensorboard_is_named_at_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert "Not installed: tensorboard" in refusal(capsys, lambda: train(tmp_path / "run", "--tensorboard"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (torch.rand(4, 3, 32, 32), "images of torch.uint8 .3, 32, 32., got torch.float32 .3, 32, 32."),
        (
            torch.zeros(4, 1, 32, 32, dtype=torch.uint8),
            "images of torch.uint8 .3, 32, 32., got torch.uint8 .1, 32, 32.",
        ),
        ([(torch.zeros(3, 32, 32, dtype=torch.uint8), 0)], "a tensor of images or Pictures, got list"),
    ],
    ids=["numbers in [0, 1]", "grey", "with labels"],
)
def test_a_reader_that_returns_something_else_is_named(images, found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(READERS, "cifar10", lambda root: images)
    with pytest.raises(RefusedError, match=f"cifar10: expected {found}"):
        load("cifar10", tmp_path, size=32, channels=3)
