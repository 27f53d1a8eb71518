"""The data sets, read by torchvision, resized and cropped as by the authors: images as tensors of unsigned bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from training import ADVICE
from training.errors import RefusedError

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # the folder of Debian's package dataset-fashion-mnist

PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")  # suffixes of the files in a folder that are read as images

Fit = Callable[[Any], Any]  # resizes and crops a PIL image


class Pictures:
    """Images that are read when they are needed: `read` opens an item as a PIL image; `fit` resizes and crops it."""

    def __init__(self, items: Sequence[Any], read: Callable[[Any], Any], fit: Fit, channels: int = 3) -> None:
        self._items, self._read, self._fit = items, read, fit
        self._mode = "RGB" if channels == 3 else "L"

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, rows: list[int]) -> Tensor:
        return torch.stack([self._picture(self._items[row]) for row in rows])

    def _picture(self, item: Any) -> Tensor:  # noqa: ANN401
        from torchvision.transforms.functional import pil_to_tensor

        try:
            with self._read(item) as image:
                return pil_to_tensor(self._fit(image.convert(self._mode)))
        except OSError as error:
            raise OSError(f"{item} cannot be read as an image: {error}") from error


Images: TypeAlias = "Tensor | Pictures"
"""Unsigned bytes. `images[rows]` is a batch `(n, channels, height, width)` if `rows` is a list of n indices."""


def load(dataset: str, root: Path, *, size: int, channels: int, split: str = "train") -> Images:
    """Return the images `(channels, size, size)` of a data set below `root`, or of the folder `root` itself.

    A GAN is trained on the split `train`; `test` has other images, if the data set has such a split. If there are no
    images, the error says where to get them.
    """
    if dataset == "fake":
        return fake(size, channels, seed=int(split == "test"))
    if split == "test" and dataset not in WITH_TEST:
        raise RefusedError(f"split: {dataset} has no test split; {', '.join(WITH_TEST)} have one")
    if dataset == "folder":
        return Pictures(files(root), Image.open, shorter_side(size), channels)
    try:
        images = READERS[dataset](root, **({"train": False} if split == "test" else {}))
    except RefusedError:
        raise
    except Exception as error:  # damage can cause any error
        raise RefusedError(f"{dataset} in {root} cannot be read: {type(error).__name__}: {error}") from error
    if not isinstance(images, Tensor | Pictures):
        raise RefusedError(f"{dataset}: expected a tensor of images or Pictures, got {type(images).__name__}")
    first = images[[0]]
    # If a reader returned numbers in [0, 1], the training would silently see almost constant images.
    if (first.dtype, first.shape) != (torch.uint8, (1, channels, size, size)):
        found = f"{first.dtype} {tuple(first.shape[1:])}"
        raise RefusedError(f"{dataset}: expected images of {torch.uint8} {(channels, size, size)}, got {found}")
    return images


def cifar10(root: Path, *, train: bool = True) -> Tensor:
    """Return the 50,000 training images of CIFAR-10, or the 10,000 test images."""
    source = "cifar-10-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html"
    expect(root / "cifar-10-batches-py", f"Download {source} and unpack it in {root}.")
    return torch.from_numpy(torchvision().CIFAR10(root, train=train).data).permute(0, 3, 1, 2)


def stl10(root: Path, *, train: bool = True) -> Pictures:
    """Return the 100,000 unlabeled images of STL-10, or the 8,000 test images, downscaled from 96 to 48 pixels."""
    split, source = "unlabeled" if train else "test", "stl10_binary.tar.gz from https://cs.stanford.edu/~acoates/stl10/"
    expect(root / "stl10_binary" / f"{split}_X.bin", f"Download {source} and unpack it in {root}.")
    return Pictures(torchvision().STL10(root, split=split), itemgetter(0), shorter_side(48))


def celeba(root: Path, fit: Fit | None = None) -> Pictures:
    """Return all 202,599 aligned images of CelebA, downscaled to 72 x 88 pixels and cropped to the middle 64 x 64."""
    folder = root / "celeba" / "img_align_celeba"
    source = "img_align_celeba.zip (Align&Cropped Images) from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
    expect(folder, f"Download {source} and unpack it in {folder.parent}.")
    return Pictures(files(folder), Image.open, fit or shorter_side(64, of=(88, 72)))


def lsun(root: Path) -> Pictures:
    """Return the 3,033,042 training images of LSUN bedrooms, the shorter side downscaled to 64 pixels, and cropped."""
    source = "bedroom_train_lmdb.zip by https://github.com/fyu/lsun (python download.py -c bedroom)"
    expect(root / "bedroom_train_lmdb", f"Download {source} and unpack it in {root}; to read it, install lmdb.")
    return Pictures(torchvision().LSUN(str(root), classes=["bedroom_train"]), itemgetter(0), shorter_side(64))


def fashion_mnist(root: Path, *, train: bool = True) -> Tensor:
    """Return the 60,000 or 10,000 images of Fashion-MNIST, padded by 2 pixels on each side to 32 x 32."""
    return torch.nn.functional.pad(fashion_mnist_data(root, train=train).data, [2] * 4)[:, None]


def fashion_mnist_data(root: Path, *, train: bool) -> Any:  # noqa: ANN401
    """Return torchvision's Fashion-MNIST, unpacked from the archives in the folder or from those of Debian."""
    raw, datasets = root / "FashionMNIST" / "raw", torchvision()
    for file in [*root.glob("*-ubyte.gz"), *DEBIAN_FASHION_MNIST.glob("*-ubyte.gz")]:
        if not (raw / file.stem).exists():
            raw.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=raw) as scratch:  # so that a file appears only when it is complete
                datasets.utils.extract_archive(str(file), scratch)
                (Path(scratch) / file.stem).replace(raw / file.stem)
    source = f"the four files from https://github.com/zalandoresearch/fashion-mnist and put them into {root}"
    expect(raw / "train-images-idx3-ubyte", f"Download {source}; or, on Debian: apt install dataset-fashion-mnist.")
    return datasets.FashionMNIST(root, train=train)


READERS: dict[str, Callable[..., Images]] = {
    "cifar10": cifar10,
    "stl10": stl10,
    "celeba": celeba,
    "lsun": lsun,
    "fashion-mnist": fashion_mnist,
}
WITH_TEST = ("cifar10", "stl10", "fashion-mnist")  # the data sets with a test split, whose readers take `train=False`
FORMATS = {"cifar10": (32, 3), "stl10": (48, 3), "celeba": (64, 3), "lsun": (64, 3), "fashion-mnist": (32, 1)}
"""Size and channels of the images. The data sets `folder` and `fake` have any."""


def fake(size: int, channels: int, count: int = 256, seed: int = 0) -> Tensor:
    """Return images of 4 x 4 squares with random colours that depend only on the seed."""
    squares = np.random.default_rng(seed).integers(0, 256, (count, channels, 4, 4), dtype=np.uint8)
    return torch.from_numpy(squares.repeat(size // 4, axis=2).repeat(size // 4, axis=3))


def files(root: Path) -> list[Path]:
    """Return the image files in a folder and its subfolders, sorted by path."""
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in PICTURES)
    if not found:
        got = "a folder without any" if root.is_dir() else "a file" if root.exists() else "a path that does not exist"
        raise RefusedError(f"{root}: expected a folder with images ({', '.join(PICTURES)}) in it or below, got {got}")
    return found


def shorter_side(size: int, of: int | tuple[int, int] | None = None) -> Fit:
    """Return a transform that scales the shorter side to `size`, or height and width to `of`, and crops the centre."""
    torchvision()
    from torchvision.transforms import v2

    return v2.Compose([v2.Resize(of or size, v2.InterpolationMode.LANCZOS), v2.CenterCrop(size)])


def torchvision() -> Any:  # noqa: ANN401
    """Return torchvision's data sets."""
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:  # the latter if it was built for another PyTorch
        message = f"Reading this data set needs torchvision, which cannot be imported: {error}\n{ADVICE}"
        raise RefusedError(message) from error
    return datasets


def expect(path: Path, advice: str) -> None:
    """Raise `RefusedError` with advice if a path does not exist."""
    if not path.exists():
        raise RefusedError(f"There is no {path}. {advice}")
