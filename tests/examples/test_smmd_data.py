"""The data of Arbel et al.: what is prepared, and crops and mirror images that resume exactly."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from dcgan.batches import Batches
from dcgan.sources import MissingDataError
from PIL import Image
from smmd.augmentation import Augmented, augmented, to_images
from smmd.sources import load


def random_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


# What is prepared


def test_cifar10_has_both_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    training, test = random_images(5, 32, 32, 3), random_images(2, 32, 32, 3)
    package, datasets = ModuleType("torchvision"), ModuleType("torchvision.datasets")
    package.datasets = datasets
    datasets.CIFAR10 = lambda root, train: SimpleNamespace(data=training if train else test)
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)
    with pytest.raises(MissingDataError, match="Download cifar-10-python.tar.gz"):
        load("cifar10", tmp_path, size=32)
    (tmp_path / "cifar-10-batches-py").mkdir()
    images = load("cifar10", tmp_path, size=32, report=lambda message: None)
    np.testing.assert_array_equal(images, np.concatenate([training, test]).transpose(0, 3, 1, 2))
    # The array with the training part alone, which another experiment makes, has another name.
    assert [path.name for path in (tmp_path / "prepared").iterdir()] == ["smmd-cifar10-3x32x32.npy"]


def test_celeba_keeps_the_middle_with_its_margin(tmp_path: Path):
    with pytest.raises(MissingDataError, match="Download img_align_celeba.zip"):
        load("celeba", tmp_path, size=160)
    folder = tmp_path / "celeba" / "img_align_celeba"
    folder.mkdir(parents=True)
    rows, columns = np.mgrid[:218, :178].astype(np.uint8)
    Image.fromarray(np.stack([rows, columns, rows], axis=2)).save(folder / "000001.jpg", quality=100, subsampling=0)
    images = load("celeba", tmp_path, size=160, report=lambda message: None)
    assert images.shape == (1, 3, 178, 178)
    assert np.abs(images[0, 0].astype(int) - rows[20:198]).max() <= 3  # what JPEG leaves of it
    assert np.abs(images[0, 1].astype(int) - columns[20:198]).max() <= 3


def test_imagenet_is_reduced_and_cropped(tmp_path: Path):
    with pytest.raises(MissingDataError, match="Ask for ILSVRC2012_img_train.tar"):
        load("imagenet", tmp_path, size=64)
    for name in ("n01/a.JPEG", "n02/b.JPEG"):
        path = tmp_path / "imagenet" / "train" / name
        path.parent.mkdir(parents=True)
        Image.new("L", (200, 100), 77).save(path)
    images = load("imagenet", tmp_path, size=64, report=lambda message: None)
    assert images.shape == (2, 3, 64, 64)
    assert (images == 77).all()


def test_fashion_mnist_is_that_of_the_other_experiments(tmp_path: Path):
    images = random_images(3, 28, 28)
    content = struct.pack(">IIII", 0x803, *images.shape) + images.tobytes()
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    found = load("fashion-mnist", tmp_path, size=32, channels=1, report=lambda message: None)
    np.testing.assert_array_equal(found[:, 0, 2:-2, 2:-2], images)


def test_an_array_of_other_images_is_refused(tmp_path: Path):
    (tmp_path / "prepared").mkdir()
    np.save(tmp_path / "prepared" / "smmd-imagenet-3x64x64.npy", np.zeros((2, 3, 8, 8), np.uint8))
    with pytest.raises(ValueError, match="delete it to have it made anew"):
        load("imagenet", tmp_path, size=64)


@pytest.mark.parametrize(("size", "channels"), [(160, 3), (32, 1)])
def test_fake_images_have_the_shape_that_is_trained_with(tmp_path: Path, size: int, channels: int):
    assert load("fake", tmp_path, size=size, channels=channels).shape[1:] == (channels, size, size)


# Crops and mirror images


def test_every_part_and_its_mirror_image_come_equally_often():
    height, width, size, count = 4, 5, 3, 12_000
    image = np.arange(height * width, dtype=np.uint8).reshape(1, 1, height, width)
    parts = augmented(image.repeat(count, axis=0), size, np.random.default_rng(0))
    assert parts.shape == (count, 1, size, size)
    found, counts = np.unique(parts.reshape(count, -1), axis=0, return_counts=True)
    crops = [image[0, 0, i : i + size, j : j + size] for i in range(2) for j in range(3)]
    expected = np.stack([part.ravel() for crop in crops for part in (crop, crop[:, ::-1])])
    np.testing.assert_array_equal(found, expected[np.lexsort(expected.T[::-1])])
    assert np.abs(counts - count / 12).max() < 5 * np.sqrt(count / 12)  # five standard deviations


def test_channels_stay_together():
    images = random_images(6, 1, 5, 5)
    parts = augmented(np.concatenate([images, 255 - images], axis=1), 3, np.random.default_rng(0))
    np.testing.assert_array_equal(parts[:, 0], 255 - parts[:, 1])


def test_images_that_are_too_small_are_refused():
    with pytest.raises(ValueError, match="size: expected at most that of the images, 4 x 5; got 5"):
        augmented(random_images(1, 1, 4, 5), 5, np.random.default_rng(0))


def make(seed: int = 0) -> Augmented:
    return Augmented(Batches(random_images(10, 3, 8, 8), 4, seed), 6)


def test_a_position_decides_the_batches_that_follow():
    batches = make()
    first = [batches.next() for _ in range(7)]  # of which the last ones are of the fourth epoch
    assert first[0].shape == (4, 3, 6, 6)
    assert first[0].dtype == torch.uint8
    for start in range(7):
        other = make(seed=5)
        again = make()
        for _ in range(start):
            again.next()
        np.random.default_rng(3).random()
        other.load_state_dict(again.state_dict())
        assert all(torch.equal(other.next(), batch) for batch in first[start:])


def test_batches_differ_in_their_crops_and_seeds_too():
    same = np.broadcast_to(random_images(1, 3, 8, 8), (4, 3, 8, 8))
    batches, others = (Augmented(Batches(same, 4, seed), 6) for seed in (0, 1))
    drawn = [batches.next() for _ in range(5)] + [others.next()]
    assert len({batch.numpy().tobytes() for batch in drawn}) == 6


def test_bytes_become_numbers_from_0_to_1():
    images = to_images(torch.tensor([0, 51, 255], dtype=torch.uint8), torch.device("cpu"))
    torch.testing.assert_close(images, torch.tensor([0.0, 0.2, 1.0]))
