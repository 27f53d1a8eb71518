"""The data of Arbel et al.: which images there are, and their crops and mirror images."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from arbel2018.data import CELEBA_MARGIN, augmented, load
from PIL import Image
from training import images
from training.errors import RefusedError


def test_cifar10_has_both_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    parts = {train: np.random.default_rng(train).integers(0, 256, (5 - train, 32, 32, 3), np.uint8) for train in (0, 1)}
    stub = SimpleNamespace(CIFAR10=lambda root, train: SimpleNamespace(data=parts[train]))
    monkeypatch.setattr(images, "torchvision", lambda: stub)
    (tmp_path / "cifar-10-batches-py").mkdir()
    found = load("cifar10", tmp_path, size=32, channels=3)
    expected = np.concatenate([parts[1], parts[0]]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(found[list(range(9))], expected)
    assert len(load("cifar10", tmp_path, size=32, channels=3, split="test")) == 5


@pytest.mark.paper
def test_celeba_keeps_the_middle_with_its_margin(tmp_path: Path):
    pytest.importorskip("torchvision")
    folder = tmp_path / "celeba" / "img_align_celeba"
    folder.mkdir(parents=True)
    rows, columns = np.mgrid[:218, :178].astype(np.uint8)
    Image.fromarray(np.stack([rows, columns, rows], axis=2)).save(folder / "000001.jpg", quality=100, subsampling=0)
    for margin, top, left in ((CELEBA_MARGIN, 20, 0), (0, 29, 9)):
        image = load("celeba", tmp_path, size=160, channels=3, margin=margin)[[0]][0]
        assert image.shape == (3, 160 + 2 * margin, 160 + 2 * margin)
        end = top + image.shape[1], left + image.shape[2]
        expected = [rows[top : end[0], left : end[1]], columns[top : end[0], left : end[1]]]
        assert np.abs(image[:2].numpy().astype(int) - expected).max() <= 3  # what JPEG leaves of it


@pytest.mark.paper
def test_imagenet_is_reduced_and_cropped(tmp_path: Path):
    pytest.importorskip("torchvision")
    for name in ("n01/a.JPEG", "n02/b.JPEG"):
        path = tmp_path / "imagenet" / "train" / name
        path.parent.mkdir(parents=True)
        Image.new("L", (200, 100), 77).save(path)
    found = load("imagenet", tmp_path, size=64, channels=3)
    assert len(found) == 2
    assert found[[0, 1]].shape == (2, 3, 64, 64)
    assert (found[[0, 1]] == 77).all()


@pytest.mark.parametrize(
    ("dataset", "split", "message"),
    [
        ("cifar10", "train", "Download cifar-10-python.tar.gz"),
        ("celeba", "train", "Download img_align_celeba.zip"),
        ("imagenet", "train", "Ask for ILSVRC2012_img_train.tar"),
        ("imagenet", "test", "split: imagenet has no test split"),
    ],
)
def test_what_is_not_there_is_named(dataset: str, split: str, message: str, tmp_path: Path):
    with pytest.raises(RefusedError, match=message):
        load(dataset, tmp_path, size=64, channels=3, split=split)


def test_every_part_and_its_mirror_image_come_equally_often():
    height, width, size, count = 4, 5, 3, 12_000
    image = torch.arange(height * width, dtype=torch.uint8).reshape(1, 1, height, width)
    draws = torch.rand(count, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    parts = augmented(image.expand(count, -1, -1, -1), size, draws)
    assert parts.shape == (count, 1, size, size)
    found, counts = np.unique(parts.reshape(count, -1).numpy(), axis=0, return_counts=True)
    crops = [image[0, 0, i : i + size, j : j + size] for i in range(2) for j in range(3)]
    expected = np.stack([part.ravel().numpy() for crop in crops for part in (crop, crop.flip(1))])
    np.testing.assert_array_equal(found, expected[np.lexsort(expected.T[::-1])])
    assert np.abs(counts - count / 12).max() < 5 * np.sqrt(count / 12)  # five standard deviations


def test_crops_keep_the_channels_together_and_stay_inside():
    pixels = torch.randint(0, 256, (6, 1, 25, 25), dtype=torch.uint8)
    draws = torch.rand(6, 3) * 2 - 1
    draws[0, :2], draws[1, :2] = -1, 1 - 2**-24  # the first and the last that there are
    parts = augmented(torch.cat([pixels, 255 - pixels], 1), 3, draws)
    assert torch.equal(parts[:, 0], 255 - parts[:, 1])
    assert torch.equal(parts[0, 0].sort().values, pixels[0, 0, :3, :3].sort().values)
    assert torch.equal(parts[1, 0].sort().values, pixels[1, 0, -3:, -3:].sort().values)
