"""Where the images of each data set come from, and how they get their size: as the authors prepared them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dcgan.idx import read_images
from dcgan.reading import DamagedFileError

Pixels = NDArray[np.uint8]

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where the Debian package dataset-fashion-mnist puts its files."""

SPLITS = ("train", "test")

PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
"""Files that count as images in a folder."""


class MissingDataError(Exception):
    """A data set is not there; the message says what to download and where to put it."""


class Source(Protocol):
    """Images `(channels, size, size)` of unsigned bytes by their index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Pixels: ...


class Pictures:
    """Images that are fitted one by one.

    Args:
        items: what to read the images from.
        read: makes an image of an item.
        fit: gives an image its size.
        channels: 3 for colours, 1 for grey.
    """

    def __init__(
        self,
        items: Sequence[Any],
        read: Callable[[Any], Image.Image],
        fit: Callable[[Image.Image], Image.Image],
        channels: int = 3,
    ) -> None:
        self._items = items
        self._read = read
        self._fit = fit
        self._mode = "RGB" if channels == 3 else "L"

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Pixels:
        item = self._items[index]
        try:
            with self._read(item) as image:
                fitted = np.asarray(self._fit(image.convert(self._mode)))
        except OSError as error:
            raise DamagedFileError(f"{item} cannot be read as an image: {error}") from error
        return np.atleast_3d(fitted).transpose(2, 0, 1)


def make_source(dataset: str, root: Path, *, size: int, channels: int, split: str = "train") -> Source:
    """Return the images of a data set.

    Args:
        dataset: its name, as in the configuration.
        root: where the data sets are; for `folder`, the folder itself.
        size: height and width of the images.
        channels: 3 for colours, 1 for grey.
        split: `train` for the images that the GAN learns from, `test` for others, which not every data set has.

    Raises:
        MissingDataError: if it is not there.
        ValueError: if it has no such split.
    """
    if split == "train" and dataset == "folder":
        return folder(root, size, channels)
    if dataset == "fake":
        return fake(size, channels, seed=SPLITS.index(split))
    reader = {"train": _READERS, "test": _TEST_READERS}[split].get(dataset)
    if reader is None:
        raise ValueError(f"split: {dataset} has no {split} split; {', '.join(_TEST_READERS)} have one")
    return reader(root)


def cifar10(root: Path, *, train: bool = True) -> Source:
    """Return the 50,000 training images of CIFAR-10, or the 10,000 test images."""
    _expect(
        root / "cifar-10-batches-py",
        f"Download cifar-10-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html and unpack it in {root}.",
    )
    images: Pixels = _torchvision().CIFAR10(root, train=train).data
    return images.transpose(0, 3, 1, 2)


def stl10(root: Path, *, split: str = "unlabeled") -> Source:
    """Return the 100,000 unlabeled images of STL-10, or the 8,000 test images, reduced from 96 to 48 pixels."""
    _expect(
        root / "stl10_binary" / f"{split}_X.bin",
        f"Download stl10_binary.tar.gz from https://cs.stanford.edu/~acoates/stl10/ and unpack it in {root}.",
    )
    images = _torchvision().STL10(root, split=split).data
    return Pictures(images, lambda image: Image.fromarray(image.transpose(1, 2, 0)), fit_shorter_side(48))


def celeba(root: Path) -> Source:
    """Return all 202,599 aligned images of CelebA, reduced to 72 x 88 pixels, of which the middle 64 x 64 remain."""
    images = root / "celeba" / "img_align_celeba"
    _expect(
        images,
        "Download img_align_celeba.zip (Align&Cropped Images) from "
        f"https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html and unpack it in {images.parent}.",
    )
    return Pictures(_picture_files(images), Image.open, fit_celeba)


def lsun(root: Path) -> Source:
    """Return the 3,033,042 training images of LSUN bedrooms, the shorter side reduced to 64 pixels, and cropped."""
    _expect(
        root / "bedroom_train_lmdb",
        "Download bedroom_train_lmdb.zip by https://github.com/fyu/lsun (python download.py -c bedroom) "
        f"and unpack it in {root}; to read it, install lmdb.",
    )
    images = _torchvision().LSUN(str(root), classes=["bedroom_train"])
    return Pictures(images, lambda item: item[0], fit_shorter_side(64))


def fashion_mnist(root: Path, *, split: str = "train") -> Source:
    """Return the images of Fashion-MNIST, 60,000 or 10,000, with a margin of 2 pixels, which makes them 32 x 32."""
    return np.pad(read_images(fashion_mnist_file(root, split, "images")), [(0, 0), (2, 2), (2, 2)])[:, None]


def fashion_mnist_file(root: Path, split: str, what: str) -> Path:
    """Return the path of the `images` or the `labels` of a split of Fashion-MNIST.

    Raises:
        MissingDataError: if there is none.
    """
    name = f"{'train' if split == 'train' else 't10k'}-{what}-idx{3 if what == 'images' else 1}-ubyte"
    folders = (root, root / "FashionMNIST" / "raw", DEBIAN_FASHION_MNIST)
    files = [folder / file for folder in folders for file in (name, f"{name}.gz")]
    found = next((path for path in files if path.is_file()), None)
    if found is None:
        raise MissingDataError(
            f"There is no {name} or {name}.gz in {', '.join(map(str, folders))}. Download {name}.gz from "
            f"https://github.com/zalandoresearch/fashion-mnist and put it into {root}; or, on Debian: "
            "apt install dataset-fashion-mnist."
        )
    return found


def folder(root: Path, size: int, channels: int) -> Source:
    """Return all images in a folder and in those below it, with the shorter side reduced to `size` and cropped."""
    _expect(root, f"Put images into {root}, or name another folder by --data-root.")
    files = _picture_files(root)
    return Pictures(files, Image.open, fit_shorter_side(size), channels)


def listing(root: Path) -> str | None:
    """Return a digest of the names, sizes and times of the images in a folder; None if there are none."""
    found = [(path, path.stat()) for path in sorted(_pictures(root))]
    lines = [f"{path.relative_to(root)} {status.st_size} {status.st_mtime_ns}\n" for path, status in found]
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest() if lines else None


def fake(size: int, channels: int, count: int = 256, seed: int = 0) -> Source:
    """Return images of 4 x 4 squares of random colours, always the same ones."""
    squares = np.random.default_rng(seed).integers(0, 256, (count, channels, 4, 4), dtype=np.uint8)
    return squares.repeat(size // 4, axis=2).repeat(size // 4, axis=3)


def fit_shorter_side(size: int) -> Callable[[Image.Image], Image.Image]:
    """Return what scales the shorter side of an image to `size` and cuts off both ends of the longer one."""

    def fit(image: Image.Image) -> Image.Image:
        scale = size / min(image.size)
        width, height = (max(size, round(side * scale)) for side in image.size)
        left, top = (width - size) // 2, (height - size) // 2
        return _resized(image, width, height).crop((left, top, left + size, top + size))

    return fit


def fit_celeba(image: Image.Image) -> Image.Image:
    """Scale an aligned image of CelebA, 178 x 218 pixels, to 72 x 88 and return the middle 64 x 64."""
    return _resized(image, 72, 88).crop((4, 12, 68, 76))


def _resized(image: Image.Image, width: int, height: int) -> Image.Image:
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _picture_files(root: Path) -> list[Path]:
    files = sorted(_pictures(root))
    if not files:
        raise MissingDataError(f"There are no images ({', '.join(PICTURES)}) in {root}.")
    return files


def _pictures(root: Path) -> Iterator[Path]:
    return (path for path in root.rglob("*") if path.suffix.lower() in PICTURES)


def _expect(path: Path, advice: str) -> None:
    if not path.exists():
        raise MissingDataError(f"There is no {path}. {advice}")


def _torchvision() -> Any:  # noqa: ANN401
    try:
        from torchvision import datasets
    except ImportError as error:
        raise MissingDataError(f"Reading this data set needs torchvision, which cannot be imported: {error}") from error
    return datasets


_READERS: dict[str, Callable[[Path], Source]] = {
    "cifar10": cifar10,
    "stl10": stl10,
    "celeba": celeba,
    "lsun": lsun,
    "fashion-mnist": fashion_mnist,
}

_TEST_READERS: dict[str, Callable[[Path], Source]] = {
    "cifar10": partial(cifar10, train=False),
    "stl10": partial(stl10, split="test"),
    "fashion-mnist": partial(fashion_mnist, split="test"),
}
