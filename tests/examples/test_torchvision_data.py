"""Data sets that torchvision reads, in the forms in which their publishers pack them."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from dcgan import labels
from dcgan.sources import make_source
from PIL import Image

datasets = pytest.importorskip("torchvision.datasets")

pytestmark = pytest.mark.paper


def random_images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(("split", "count"), [("train", 10), ("test", 2)])
def test_cifar10(split: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    images = random_images(12, 3, 32, 32)
    for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        part = images[2 * number : 2 * number + 2]
        content = {"data": part.reshape(2, -1), "labels": [number, number + 1]}
        (folder / name).write_bytes(pickle.dumps(content))
    names = pickle.dumps({"label_names": labels.CLASSES["cifar10"]})
    (folder / "batches.meta").write_bytes(names)
    meta = {**datasets.CIFAR10.meta, "md5": None}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    source = make_source("cifar10", tmp_path, size=32, channels=3, split=split)
    expected = {"train": images[:10], "test": images[10:]}[split]
    np.testing.assert_array_equal(np.stack([source[i] for i in range(len(source))]), expected)
    found = labels.load("cifar10", tmp_path, split=split)
    assert found.tolist() == {"train": [0, 1, 1, 2, 2, 3, 3, 4, 4, 5], "test": [5, 6]}[split]
    assert len(found) == count


@pytest.mark.parametrize("split", ["train", "test"])
def test_stl10(split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasets.STL10, "_check_integrity", lambda self: True)
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    bright = np.zeros((2, 3, 96, 96), np.uint8)
    bright[1, 0, :, :48] = 200  # the left half, in columns, as the file has them
    name = {"train": "unlabeled", "test": "test"}[split]
    (folder / f"{name}_X.bin").write_bytes(bright.transpose(0, 1, 3, 2).tobytes())
    (folder / "test_y.bin").write_bytes(bytes([1, 2]))
    (folder / "class_names.txt").write_text("a\nb\n")
    source = make_source("stl10", tmp_path, size=48, channels=3, split=split)
    assert len(source) == 2
    assert source[0].max() == 0
    assert source[1].shape == (3, 48, 48)
    assert (source[1][0, :, :20] == 200).all()
    assert source[1][0, :, 28:].max() == 0


# torchvision leaves the file open in which it keeps the keys, and writes it into the working directory.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_lsun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    lmdb = pytest.importorskip("lmdb")
    with (
        lmdb.open(str(tmp_path / "bedroom_train_lmdb"), map_size=1 << 20) as database,
        database.begin(write=True) as write,
    ):
        for number in range(3):
            with io.BytesIO() as file:
                Image.new("RGB", (80, 70), (10 * number, 0, 0)).save(file, format="webp", lossless=True)
                write.put(b"%03d" % number, file.getvalue())
    source = make_source("lsun", tmp_path, size=64, channels=3)
    assert len(source) == 3
    assert [(source[i].shape, int(source[i][0].max())) for i in range(3)] == [((3, 64, 64), 10 * i) for i in range(3)]
