"""Measure the samples of a run by Inception score, FID, KID, MS-SSIM and classes, and record their provenance.

With --floor DATASET, measure real images in place of generated ones: training images compared with test images if
--split is test, or one half of the training images compared with the other half if it is train.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

if __name__ == "__main__":  # before other imports, so that all missing packages are named at once
    import evaluation  # noqa: F401

import numpy as np
import torch
import tyro
from evaluation import features, metrics, provenance
from torch import Tensor
from training import checkpoints
from training.batches import to_pixels
from training.errors import RefusedError
from training.files import write_text
from training.images import FORMATS, Images, load
from training.sampling import averaged
from training.settings import check
from wang2019.presets import DataSet

PAPER = 49_984  # number of generated and of real images that the authors compare: 781 batches of 64


@dataclass(frozen=True)
class Options:
    """The options of an evaluation."""

    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]")] = None
    """folder of a run, for its newest checkpoint, or path of a checkpoint"""
    floor: DataSet | None = None  # data set of the real images to measure in place of a run
    all: bool = False  # measure all checkpoints of the run, the oldest first
    features: Annotated[str, tyro.conf.arg(metavar="inception|PATH")] = "inception"
    """network for the features; a path is a file of classifier.py, or a Python file with a function load()"""
    inception_weights: Path | None = None  # file with the weights of Inception; by default they are downloaded
    images: int | None = None  # number of generated and of real images; by default 49,984, or all if there are fewer
    split: Literal["train", "test"] = "train"  # split of the real images to compare with
    weights: Literal["averaged", "current"] = "averaged"  # moving average of the generator, or the generator itself
    is_splits: int = 1  # number of splits for the Inception score; the paper has 1, other papers often 10
    data_root: Path | None = None  # folder of the data sets; by default that of the run, or data
    size: int = 32  # height and width of the images, for --floor folder and --floor fake
    channels: Literal[1, 3] = 3  # channels of the images, for --floor folder and --floor fake
    batch_size: int = 64  # number of images in one forward pass
    device: Literal["cpu", "cuda"] = "cuda" if torch.cuda.is_available() else "cpu"  # device to compute on
    seed: int = 0  # seed of the noise, of the choice of real images and of the subsets of KID
    out: Path | None = None  # file of the result; by default in the folder evaluations of the run
    overwrite: bool = False  # replace the result if it exists

    def __post_init__(self) -> None:  # tyro reports a ValueError as wrong usage
        if (self.run is None) == (self.floor is None) or (self.all and (self.run is None or self.out is not None)):
            raise ValueError("run: expected a run, or a run and --all without --out, or --floor DATASET")
        check(self, "images", least=2)
        check(self, "is_splits", "batch_size", least=1)
        check(self, "seed", least=0, below=2**32)
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device: expected cpu, since PyTorch finds no CUDA device; got cuda")


def picked(images: Images, count: int, seed: int, part: int = 0) -> Tensor:
    """Return images `(count, channels, h, w)` that the seed picks; those of two parts are different ones."""
    order = np.random.default_rng(seed).permutation(len(images))
    rows = np.sort(order[part * count :][:count]).tolist()  # sorted, so that files are read sequentially
    return images[rows]


class Comparison(NamedTuple):
    """Images to measure, and real images to compare them with."""

    measured: Callable[[int], Tensor]  # returns a number of images to measure
    real: Images
    available: int  # largest number of images that can be compared
    result: Path  # path of a result up to the name of the features
    origin: dict[str, Any]


def generated(options: Options, path: Path) -> Comparison:
    """Return the images of the generator in a checkpoint, from noise that depends only on the seed."""
    run = next((folder for folder in path.parents if (folder / "configuration.json").exists()), path.parent)
    state = checkpoints.read(path)
    settings, iteration = state["configuration"], state["iteration"]
    try:
        dataset, root = settings["dataset"], options.data_root or Path(settings["data_root"])
        sampler = import_module(f"{state['paper']}.train").sampler(settings)
        sampler.generator.load_state_dict(averaged(state) if options.weights == "averaged" else state["generator"])
    except (ImportError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"run: {path} cannot be used: {error}") from error
    generator = sampler.generator.to(options.device).eval()

    @torch.inference_mode()
    def draw(count: int) -> Tensor:
        parts = []
        for noise in sampler.noise(count, torch.Generator().manual_seed(options.seed)).split(options.batch_size):
            images = sampler.centred(generator(noise.to(options.device)))
            if not images.isfinite().all():
                raise ValueError(f"run: the generator in {path} returns images with NaN or infinite values")
            parts.append(to_pixels(images).cpu())
        return torch.cat(parts)

    real = sampler.real(root, options.split)
    checkpoint = {"path": path.relative_to(run).as_posix(), "iteration": iteration, "weights": options.weights}
    checkpoint["sha256"] = provenance.digest_of_file(path)
    origin = {"checkpoint": checkpoint, "dataset": dataset, "configuration": settings}
    result = run / "evaluations" / f"iteration-{iteration:08d}-{options.weights}"
    return Comparison(draw, real, len(real), result, origin)


def floor(options: Options, dataset: str) -> Comparison:
    """Return training images to compare with test images, or with other training images."""
    size, channels = FORMATS.get(dataset, (options.size, options.channels))
    read = partial(load, dataset, options.data_root or Path("data"), size=size, channels=channels)
    train, halves = read(), options.split == "train"
    real = train if halves else read(split="test")
    available = len(train) // 2 if halves else min(len(train), len(real))
    measured = partial(picked, train, seed=options.seed, part=int(halves))
    result = Path(f"runs/real-{dataset}/evaluations/real-{'half' if halves else 'train'}")
    origin = {"dataset": dataset, "measured": f"{'other ' * halves}real images of the train split"}
    return Comparison(measured, real, available, result, origin)


def evaluate(options: Options, compared: Comparison) -> Path:
    """Measure, write the result, and return its path."""
    start, dataset, device = time.perf_counter(), compared.origin["dataset"], torch.device(options.device)
    network, about = features.load(options.features, tuple(compared.real[[0]].shape[1:]), options.inception_weights)
    count = options.images or min(PAPER, compared.available)
    if count > compared.available:
        raise ValueError(f"images: expected at most {compared.available:,}, the number of images; got {count:,}")
    seed = f"-seed-{options.seed}" if options.seed else ""
    out = options.out or Path(f"{compared.result}-{Path(options.features).stem}-{options.split}-{count}{seed}.json")
    if out.exists() and not options.overwrite:
        raise FileExistsError(f"{out} exists; choose another --out, or --overwrite to replace it")
    if count <= about["dimension"]:
        problem = f"{count} images do not determine the covariance of {about['dimension']} features"
        print(f"Warning: {problem}; compare this FID only with FIDs of as many images", file=sys.stderr)
    print(f"Comparing {count:,} images with as many of the {options.split} split of {dataset}")

    torch.manual_seed(options.seed)  # for the subsets of KID
    pixels = compared.measured(count)
    ours, logits = features.extract(network, pixels, options.batch_size, device)
    others = picked(compared.real, count, options.seed)
    real, real_logits = features.extract(network, others, options.batch_size, device)
    subset_size = min(metrics.SUBSET_SIZE, max(2, count // 2))  # half of few images, so that the subsets differ
    numbers = metrics.inception_score(logits, options.is_splits) if about["logits"] else {}
    numbers |= metrics.frechet_distance(ours, real) | metrics.kernel_distance(ours, real, subset_size)
    if dataset in ("celeba", "lsun"):  # the paper reports MS-SSIM only for these, since the others have many classes
        numbers |= metrics.similarity(pixels, device)
    result: dict[str, Any] = {"metrics": numbers}
    if about["logits"] and options.features != features.INCEPTION:  # whose classes are not those of the data set
        shares = {"measured": metrics.class_shares(logits), "real": metrics.class_shares(real_logits)}
        numbers |= metrics.class_coverage(**shares)
        result["class_shares"] = {side: share.tolist() for side, share in shares.items()}
    result["provenance"] = {
        **compared.origin,
        **{name: getattr(options, name) for name in ("split", "seed", "device", "batch_size", "is_splits")},
        "images": {"measured": count, "real": count},
        "extractor": about,
        "kid": {"subsets": metrics.SUBSETS, "subset_size": subset_size},
        "ms_ssim": {"resize": f"to {metrics.RESIZED} x {metrics.RESIZED}, bilinear"},
        "seconds": round(time.perf_counter() - start, 1),
        **provenance.circumstances(),
    }
    if not all(map(math.isfinite, numbers.values())):
        raise ValueError(f"features: expected finite metrics, got {numbers}")
    write_text(out, json.dumps(result, indent=2) + "\n")
    print(*(f"{name:22}{number:.6g}" for name, number in numbers.items()), f"Result: {out}", sep="\n")
    return out


def main(arguments: Sequence[str] | None = None) -> Path:
    """Evaluate with the options of a command line, and return the path of the (last) result."""
    options = tyro.cli(Options, description=__doc__, args=arguments, config=(tyro.conf.FlagCreatePairsOff,))
    try:
        if options.run is None:
            return evaluate(options, floor(options, options.floor or ""))
        paths = [options.run]
        if options.run.is_dir():
            paths = checkpoints.newest_first(options.run / "checkpoints")[: None if options.all else 1]
        if not paths:
            raise ValueError(f"run: there is no checkpoint in {options.run / 'checkpoints'}")
        return [evaluate(options, generated(options, path)) for path in reversed(paths)][-1]
    except (RefusedError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
