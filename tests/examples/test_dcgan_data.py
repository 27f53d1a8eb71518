"""The data of the experiments: reading, preparing once, what is missing, and batches that resume exactly."""

from __future__ import annotations

import gzip
import struct
import sys
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from dcgan import labels, prepared, sources
from dcgan.atomic import replacing, write_text
from dcgan.batches import Batches, to_images, to_pixels
from dcgan.idx import read_images
from dcgan.sources import MissingDataError, fit_celeba, fit_shorter_side, make_source
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

IDX_NAME = "train-images-idx3-ubyte"


def idx(images: np.ndarray) -> bytes:
    return struct.pack(">IIII", 0x803, *images.shape) + images.tobytes()


def random_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


def ramp(width: int, height: int) -> Image.Image:
    """Return a picture whose red is the column and whose green is the row, in units of the whole."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([red, green, np.zeros_like(red)], axis=2).round().astype(np.uint8))


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stand in for torchvision, which need not be installed, by what of it is used."""
    datasets, package = ModuleType("torchvision.datasets"), ModuleType("torchvision")
    package.datasets = datasets
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)
    return datasets


# Reading


@pytest.mark.parametrize("place", [".", "FashionMNIST/raw", "debian"])
@pytest.mark.parametrize("compressed", [False, True])
def test_fashion_mnist_is_read_from_where_it_is_installed(
    place: str, compressed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sources, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    images = random_images(3, 28, 28)
    folder = tmp_path / place
    folder.mkdir(parents=True, exist_ok=True)
    content = gzip.compress(idx(images)) if compressed else idx(images)
    (folder / f"{IDX_NAME}{'.gz' if compressed else ''}").write_bytes(content)
    source = make_source("fashion-mnist", tmp_path, size=32, channels=1)
    assert len(source) == 3
    assert source[1].shape == (1, 32, 32)
    np.testing.assert_array_equal(source[1][0, 2:-2, 2:-2], images[1])
    assert source[1].sum() == images[1].sum()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a", b"", "is no idx file of images"),
        ("a", struct.pack(">IIII", 0x801, 1, 1, 1) + b"0", "is no idx file of images"),
        ("a", idx(random_images(2, 3, 3))[:-1], r"is damaged \(it has 17 bytes for images \(2, 3, 3\)\)"),
        ("a.gz", gzip.compress(idx(random_images(2, 3, 3)), mtime=0)[:-9], "is damaged"),
        ("a.gz", b"not compressed, and long enough", "is damaged"),
    ],
)
def test_damaged_idx_files_are_refused(name: str, content: bytes, message: str, tmp_path: Path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_images(tmp_path / name)


def test_cifar10_is_read_by_torchvision(torchvision: SimpleNamespace, tmp_path: Path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    images = random_images(5, 32, 32, 3)
    torchvision.CIFAR10 = lambda root, train: (
        SimpleNamespace(data=images) if (root, train) == (tmp_path, True) else None
    )
    source = make_source("cifar10", tmp_path, size=32, channels=3)
    assert len(source) == 5
    np.testing.assert_array_equal(source[4], images[4].transpose(2, 0, 1))


def test_stl10_is_the_unlabeled_part_at_half_its_size(torchvision: SimpleNamespace, tmp_path: Path):
    (tmp_path / "stl10_binary").mkdir()
    (tmp_path / "stl10_binary" / "unlabeled_X.bin").touch()
    image = np.asarray(ramp(96, 96)).transpose(2, 0, 1)[None]
    torchvision.STL10 = lambda root, split: SimpleNamespace(data=image) if split == "unlabeled" else None
    found = make_source("stl10", tmp_path, size=48, channels=3)[0]
    assert found.shape == (3, 48, 48)
    # Means of two neighbours of the ramp; Lanczos differs from them at the edges only.
    expected = image[0].reshape(3, 48, 2, 48, 2).mean((2, 4))
    assert np.abs(found.astype(float) - expected)[:, 3:-3, 3:-3].max() <= 1.5


def test_celeba_is_cropped_as_the_authors_do(tmp_path: Path):
    folder = tmp_path / "celeba" / "img_align_celeba"
    folder.mkdir(parents=True)
    ramp(178, 218).save(folder / "000002.png")
    Image.new("RGB", (178, 218), (9, 8, 7)).save(folder / "000001.png")
    (folder / "readme.txt").touch()
    source = make_source("celeba", tmp_path, size=64, channels=3)
    assert len(source) == 2
    assert source[0].shape == (3, 64, 64)
    assert source[0][:, 0, 0].tolist() == [9, 8, 7]
    # Columns 4 to 67 of 72 and rows 12 to 75 of 88 remain: the middle of the ramp, whose ends show where it was cut.
    red, green = source[1][0, 32].astype(float), source[1][1, :, 32].astype(float)
    assert red[[0, -1]] == pytest.approx([255 * 4.5 / 72, 255 * 67.5 / 72], abs=2)
    assert green[[0, -1]] == pytest.approx([255 * 12.5 / 88, 255 * 75.5 / 88], abs=2)


def test_lsun_is_read_from_its_database(torchvision: SimpleNamespace, tmp_path: Path):
    (tmp_path / "bedroom_train_lmdb").mkdir()
    torchvision.LSUN = lambda root, classes: [(ramp(341, 256), 0)] if classes == ["bedroom_train"] else None
    source = make_source("lsun", tmp_path, size=64, channels=3)
    assert len(source) == 1
    assert source[0].shape == (3, 64, 64)
    red, green = source[0][0, 32].astype(float), source[0][1, :, 32].astype(float)
    assert red[[0, -1]] == pytest.approx([255 * 10.5 / 85, 255 * 73.5 / 85], abs=2)
    assert green[[0, -1]] == pytest.approx([255 * 0.5 / 64, 255 * 63.5 / 64], abs=2)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_gives_all_images_below_it_in_the_order_of_their_names(channels: int, tmp_path: Path):
    (tmp_path / "b").mkdir()
    Image.new("RGBA", (40, 70), (1, 1, 1, 255)).save(tmp_path / "b" / "x.PNG")
    Image.new("L", (90, 33), 2).save(tmp_path / "a.bmp")
    source = make_source("folder", tmp_path, size=32, channels=channels)
    assert [source[index].shape for index in range(len(source))] == [(channels, 32, 32)] * 2
    assert [int(source[index].max()) for index in range(len(source))] == [2, 1]


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([32, 48, 64]))
def test_images_of_any_shape_are_fitted(width: int, height: int, size: int):
    assert fit_shorter_side(size)(Image.new("L", (width, height))).size == (size, size)
    assert fit_celeba(Image.new("L", (178, 218))).size == (64, 64)


@pytest.mark.parametrize("size", [32, 48, 64])
def test_fake_images_are_always_the_same(size: int):
    images = prepared.load("fake", Path("nowhere"), size=size, channels=3)
    assert images.shape == (256, 3, size, size)
    np.testing.assert_array_equal(images, prepared.load("fake", Path("nowhere"), size=size, channels=3))
    assert images.std() > 60


# Other splits, and labels


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_splits_of_fashion_mnist_have_their_own_images_and_labels(split: str, tmp_path: Path):
    for number, name in enumerate(("train", "t10k"), start=2):
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(idx(np.full((number, 28, 28), number, np.uint8)))
        classes = struct.pack(">II", 0x801, number) + bytes(range(number, 2 * number))
        (tmp_path / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(classes))
    number = {"train": 2, "test": 3}[split]
    images = prepared.load("fashion-mnist", tmp_path, size=32, channels=1, split=split)
    assert images.shape == (number, 1, 32, 32)
    assert images.max() == number
    np.testing.assert_array_equal(labels.load("fashion-mnist", tmp_path, split=split), range(number, 2 * number))
    there = [path.name for path in (tmp_path / "prepared").iterdir()]
    assert there == [f"fashion-mnist{'-test' if split == 'test' else ''}-1x32x32.npy"]


def test_the_test_splits_of_cifar10_and_stl10_are_read_by_torchvision(torchvision: SimpleNamespace, tmp_path: Path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "stl10_binary").mkdir()
    (tmp_path / "stl10_binary" / "test_X.bin").touch()
    parts = {train: SimpleNamespace(data=random_images(5 - train, 32, 32, 3), targets=[train]) for train in (0, 1)}
    torchvision.CIFAR10 = lambda root, train: parts[train]
    torchvision.STL10 = lambda root, split: SimpleNamespace(data=random_images({"test": 6}[split], 3, 96, 96))
    assert len(make_source("cifar10", tmp_path, size=32, channels=3, split="test")) == 5
    assert len(make_source("stl10", tmp_path, size=48, channels=3, split="test")) == 6
    assert labels.load("cifar10", tmp_path, split="test").tolist() == [0]
    assert labels.load("cifar10", tmp_path).tolist() == [1]


def test_fake_images_of_the_test_split_are_others():
    load = lambda split: prepared.load("fake", Path("nowhere"), size=32, channels=1, split=split)  # noqa: E731
    assert load("test").shape == load("train").shape
    assert (load("test") != load("train")).mean() > 0.9


@pytest.mark.parametrize("dataset", ["celeba", "lsun", "folder"])
def test_data_sets_without_a_test_split_say_so(dataset: str, tmp_path: Path):
    with pytest.raises(ValueError, match=f"split: {dataset} has no test split; cifar10, stl10, fashion-mnist have one"):
        make_source(dataset, tmp_path, size=64, channels=3, split="test")


def test_data_sets_without_labels_say_so(tmp_path: Path):
    with pytest.raises(ValueError, match=r"expected one with labels \(fashion-mnist, cifar10\), got lsun"):
        labels.load("lsun", tmp_path)


def test_missing_and_damaged_labels_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sources, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    with pytest.raises(MissingDataError, match="Download t10k-labels-idx1-ubyte.gz"):
        labels.load("fashion-mnist", tmp_path, split="test")
    path = tmp_path / "t10k-labels-idx1-ubyte"
    path.write_bytes(idx(random_images(2, 3, 3)))
    with pytest.raises(ValueError, match="is no idx file of labels"):
        labels.load("fashion-mnist", tmp_path, split="test")
    path.write_bytes(struct.pack(">II", 0x801, 3) + b"12")
    with pytest.raises(ValueError, match=r"it has 2 bytes for labels \(3,\)"):
        labels.load("fashion-mnist", tmp_path, split="test")


# What is missing


@pytest.mark.parametrize(
    ("dataset", "advice"),
    [
        ("cifar10", "cifar-10-python.tar.gz from .* and unpack it in"),
        ("stl10", "stl10_binary.tar.gz from .* and unpack it in"),
        ("celeba", "img_align_celeba.zip .* and unpack it in .*celeba"),
        ("lsun", "bedroom_train_lmdb.zip .* and unpack it in .* install lmdb"),
        ("fashion-mnist", "Download train-images-idx3-ubyte.gz .* put it into .* apt install dataset-fashion-mnist"),
        ("folder", "Put images into .*, or name another folder by --data-root"),
    ],
)
def test_missing_data_sets_say_what_to_download_and_where_to_put_it(
    dataset: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sources, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    root = tmp_path / "data"
    with pytest.raises(MissingDataError, match=f"There is no .*{root}.*{advice}"):
        make_source(dataset, root, size=32, channels=3)


def test_an_empty_folder_and_a_missing_torchvision_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(MissingDataError, match=r"There are no images \(\.bmp, .*\) in "):
        make_source("folder", tmp_path, size=32, channels=3)
    (tmp_path / "cifar-10-batches-py").mkdir()
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingDataError, match="needs torchvision, which cannot be imported"):
        make_source("cifar10", tmp_path, size=32, channels=3)


# Preparing


def test_a_data_set_is_prepared_once(tmp_path: Path):
    (tmp_path / IDX_NAME).write_bytes(idx(random_images(4, 28, 28)))
    reports: list[str] = []
    load = lambda: prepared.load("fashion-mnist", tmp_path, size=32, channels=1, report=reports.append)  # noqa: E731
    first = load()
    (tmp_path / IDX_NAME).unlink()
    second = load()
    assert isinstance(second, np.memmap)
    assert first.shape == (4, 1, 32, 32)
    np.testing.assert_array_equal(first, second)
    path = tmp_path / "prepared" / "fashion-mnist-1x32x32.npy"
    assert reports == [f"Preparing {path}: 4 of 4 images"]
    assert list(path.parent.iterdir()) == [path]


def test_what_is_interrupted_is_not_taken_for_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Broken:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> np.ndarray:
            if index:
                raise KeyboardInterrupt
            return np.zeros((1, 32, 32), np.uint8)

    with pytest.raises(KeyboardInterrupt):
        prepared.write(Broken(), (1, 32, 32), tmp_path / "prepared" / "x.npy", print)
    assert list((tmp_path / "prepared").iterdir()) == []


def test_what_a_killed_preparation_has_left_does_no_harm(tmp_path: Path):
    (tmp_path / IDX_NAME).write_bytes(idx(random_images(4, 28, 28)))
    (tmp_path / "prepared").mkdir()
    left = tmp_path / "prepared" / "fashion-mnist-1x32x32.npy.123.partial"
    left.write_bytes(b"half")
    images = prepared.load("fashion-mnist", tmp_path, size=32, channels=1, report=lambda message: None)
    np.testing.assert_array_equal(images[:, 0, 2:-2, 2:-2], random_images(4, 28, 28))
    assert sorted(left.parent.iterdir()) == sorted([left, left.with_name("fashion-mnist-1x32x32.npy")])


def test_an_array_of_something_else_is_refused(tmp_path: Path):
    (tmp_path / "prepared").mkdir()
    np.save(tmp_path / "prepared" / "lsun-3x64x64.npy", np.zeros((2, 3, 32, 32), np.uint8))
    with pytest.raises(ValueError, match=r"holds uint8 of shape \(2, 3, 32, 32\); delete it"):
        prepared.load("lsun", tmp_path, size=64, channels=3)


def test_a_file_is_replaced_in_full_or_not_at_all(tmp_path: Path):
    path = tmp_path / "new" / "file"
    with replacing(path) as partial:
        partial.write_text("first")
        assert not path.exists()

    def stop_within() -> None:
        with replacing(path) as partial:
            partial.write_text("sec")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop_within()
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]


def test_a_text_is_replaced_in_full_or_not_at_all_in_utf8(tmp_path: Path):
    path = tmp_path / "new" / "file"
    write_text(path, "first λ\n")
    assert path.read_bytes() == "first λ\n".encode()
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "a lone surrogate \ud800")
    assert path.read_bytes() == "first λ\n".encode()
    assert list(path.parent.iterdir()) == [path]


# Batches


def test_an_epoch_has_every_image_once_and_each_epoch_its_own_order():
    images = np.arange(12, dtype=np.uint8).reshape(12, 1, 1, 1)
    batches = Batches(images, 4, seed=0)
    epochs = [torch.cat([batches.next() for _ in range(3)]).flatten().tolist() for _ in range(3)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_a_short_last_batch_is_left_out():
    batches = Batches(np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1), 4, seed=0)
    for _ in range(5):
        epoch = torch.cat([batches.next() for _ in range(2)]).flatten().tolist()
        assert len(set(epoch)) == 8


@given(st.integers(1, 9), st.integers(0, 30), st.integers(0, 2**32 - 1), st.integers(0, 3), st.integers(0, 3))
def test_batches_go_on_from_any_position_as_if_never_interrupted(
    size: int, before: int, seed: int, workers: int, workers_later: int
):
    images = np.arange(9, dtype=np.uint8).reshape(9, 1, 1, 1)
    batches = Batches(images, size, seed, workers=workers)
    resumed = Batches(images, size, seed=1, workers=workers_later)
    resumed.next()  # so that there are batches ahead that are not wanted any more
    for _ in range(before):
        batches.next()
    resumed.load_state_dict(batches.state_dict())
    for _ in range(12):
        assert torch.equal(batches.next(), resumed.next())


@given(st.integers(0, 20))
def test_processes_share_the_batches_of_one(before: int):
    images = np.arange(12, dtype=np.uint8).reshape(12, 1, 1, 1)
    alone = Batches(images, 6, seed=3)
    shares = [Batches(images, 6, seed=3, rows=slice(start, start + 2)) for start in (0, 2, 4)]
    for _ in range(before):
        joint = torch.cat([share.next() for share in shares])
        assert torch.equal(joint, alone.next())
    assert {str(share.state_dict()) for share in shares} == {str(alone.state_dict())}


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_as_many_threads_read_ahead_as_there_are_workers(workers: int):
    threads: list[threading.Thread] = []

    class Watched(np.ndarray):
        def __getitem__(self, picked):
            threads.append(threading.current_thread())
            time.sleep(0.01)
            return super().__getitem__(picked).view(np.ndarray)

    batches = Batches(np.zeros((40, 1, 1, 1), np.uint8).view(Watched), 4, seed=0, workers=workers)
    for _ in range(8):
        batches.next()
    if workers:
        assert threading.main_thread() not in threads
        assert len(set(threads)) == workers
    else:
        assert set(threads) == {threading.main_thread()}
        assert len(threads) == 8


@pytest.mark.parametrize("workers", [0, 2])
def test_what_fails_in_a_worker_fails_the_run(workers: int):
    class Broken(np.ndarray):
        def __getitem__(self, picked):
            raise OSError("the disk is gone")

    batches = Batches(np.zeros((9, 1, 1, 1), np.uint8).view(Broken), 4, seed=0, workers=workers)
    with pytest.raises(OSError, match="the disk is gone"):
        batches.next()


def test_a_position_in_another_number_of_images_is_refused():
    batches, others = (Batches(np.zeros((count, 1, 1, 1), np.uint8), 4, seed=0) for count in (9, 1200))
    with pytest.raises(ValueError, match="a data set of 9 images, and this one has 1,200"):
        others.load_state_dict(batches.state_dict())


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="batch_size: expected at most the number of images, 3; got 4"):
        Batches(np.zeros((3, 1, 1, 1), np.uint8), 4, seed=0)


def test_bytes_become_numbers_from_minus_one_to_one_and_bytes_again():
    pixels = torch.arange(256).byte()
    images = to_images(pixels, torch.device("cpu"))
    assert images.dtype == torch.float32
    assert (images.min(), images.max()) == (-1, 1)
    assert torch.equal(to_pixels(images), pixels)
    assert to_pixels(torch.tensor([-1.5, 2.0])).tolist() == [0, 255]
