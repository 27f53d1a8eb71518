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
from torch.utils.data import Dataset
from training import checkpoints
from training.batches import to_pixels
from training.errors import RefusedError
from training.files import write_text
from training.images import FORMATS, load
from training.sampling import averaged
from training.settings import check
from wang2019.presets import DataSet

Metric = Literal["is", "fid", "kid", "ms-ssim", "classes"]
WITH_SIMILARITY = ("celeba", "lsun")  # the paper reports MS-SSIM only for these, since the others have many classes
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
    metrics: Annotated[tuple[Metric, ...] | None, tyro.conf.arg(metavar="{is,fid,kid,ms-ssim,classes} ...")] = None
    """metrics to compute; by default all that the features allow, and ms-ssim only for celeba and lsun"""
    images: int | None = None
    """number of generated images, and of real images; by default 49,984, or all if there are fewer"""
    split: Literal["train", "test"] = "train"  # split of the real images to compare with
    weights: Literal["averaged", "current"] = "averaged"  # moving average of the generator, or the generator itself
    is_splits: int = 1  # number of splits for the Inception score; the paper has 1, other papers often 10
    kid_subset_size: int | None = None
    """number of images in each of the 100 subsets of KID; by default 1,000, or half of the images if that is less"""
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
        check(self, "images", "kid_subset_size", least=2)
        check(self, "is_splits", "batch_size", least=1)
        check(self, "seed", least=0, below=2**32)
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device: expected cpu, since PyTorch finds no CUDA device; got cuda")


class Shuffled:
    """The images of a data set in a random order."""

    def __init__(self, images: Dataset[Tensor], seed: int) -> None:
        self.images = images
        self.order = np.random.default_rng(seed).permutation(len(images))  # type: ignore[arg-type]

    def take(self, count: int, start: int = 0) -> Tensor:
        """Return the images `(count, channels, h, w)` from position `start` of the order on."""
        rows = np.sort(self.order[start : start + count]).tolist()  # sorted, so that files are read sequentially
        return torch.stack([self.images[row] for row in rows])


class Comparison(NamedTuple):
    """Images to measure, and real images to compare them with."""

    real: Shuffled
    measured: Callable[[int], Tensor]  # returns a number of images to measure
    available: int  # largest number of images that can be compared
    folder: Path  # folder of the run, for the results
    label: str  # part of the name of a result
    origin: dict[str, Any]


def generated(options: Options, path: Path) -> Comparison:
    """Return the images of the generator in a checkpoint, from noise that depends only on the seed."""
    run = next((folder for folder in path.parents if (folder / "configuration.json").exists()), path.parent)
    state = checkpoints.read(path)
    settings = state["configuration"]
    try:
        dataset, root = settings["dataset"], options.data_root or Path(settings["data_root"])
        sampler = import_module(f"{state['paper']}.sampling").sampler(settings)
        sampler.generator.load_state_dict(averaged(state) if options.weights == "averaged" else state["generator"])
    except (ImportError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"run: {path} cannot be used: {error}") from error
    generator = sampler.generator.to(options.device).eval()

    @torch.inference_mode()
    def draw(count: int) -> Tensor:
        noise = sampler.noise(count, torch.Generator().manual_seed(options.seed)).split(options.batch_size)
        parts = []
        for part in noise:
            images = sampler.centred(generator(part.to(options.device)))
            if not images.isfinite().all():
                raise ValueError(f"run: the generator in {path} returns images with NaN or infinite values")
            parts.append(to_pixels(images).cpu())
        return torch.cat(parts)

    real = Shuffled(sampler.real(root, options.split), options.seed)
    checkpoint = {"path": path.relative_to(run).as_posix(), "iteration": state["iteration"], "weights": options.weights}
    checkpoint["sha256"] = provenance.digest_of_file(path)
    origin = {"checkpoint": checkpoint, "measured": "generated images", "dataset": dataset, "configuration": settings}
    return Comparison(real, draw, len(real.order), run, f"iteration-{state['iteration']:08d}-{options.weights}", origin)


def floor(options: Options, dataset: str) -> Comparison:
    """Return training images to compare with test images, or with other training images."""
    size, channels = FORMATS.get(dataset, (options.size, options.channels))
    root, folder, origin = options.data_root or Path("data"), Path(f"runs/real-{dataset}"), {"dataset": dataset}
    train = Shuffled(load(dataset, root, size=size, channels=channels), options.seed)
    if options.split == "train":
        half = len(train.order) // 2
        origin["measured"] = "other real images of the same split"
        return Comparison(train, lambda count: train.take(count, count), half, folder, "real-half", origin)
    test = Shuffled(load(dataset, root, size=size, channels=channels, split="test"), options.seed)
    origin["measured"] = "real images of the train split"
    return Comparison(test, train.take, min(len(test.order), len(train.order)), folder, "real-train", origin)


def evaluate(options: Options, compared: Comparison, arguments: Sequence[str] | None) -> Path:
    """Measure, write the result, and return its path."""
    start, dataset = time.perf_counter(), compared.origin["dataset"]
    shape = tuple(compared.real.take(1).shape[1:])
    network = features.load(options.features, shape=shape, inception_weights=options.inception_weights)
    about = network.provenance
    usual = {"is": about["logits"] > 0, "fid": True, "kid": True, "ms-ssim": dataset in WITH_SIMILARITY}
    usual["classes"] = about["logits"] > 0 and network.name != features.INCEPTION
    chosen = options.metrics or [name for name, sensible in usual.items() if sensible]
    if any(name in chosen and not usual[name] for name in ("is", "classes")):
        raise ValueError("metrics: is and classes need logits, and classes those of a classifier of the data set")
    count = options.images or min(PAPER, compared.available)
    # By default half of few images, so that the subsets differ.
    subset_size = options.kid_subset_size or min(metrics.SUBSET_SIZE, max(2, count // 2))
    for name, asked, most in (("images", count, compared.available), ("kid_subset_size", subset_size, count)):
        if asked > most:
            raise ValueError(f"{name}: expected at most {most:,}, the number of images; got {asked:,}")
    seed = f"-seed-{options.seed}" if options.seed else ""
    name = f"{compared.label}-{network.name}-{options.split}-{count}{seed}.json"
    out = options.out or compared.folder / "evaluations" / name
    if out.exists() and not options.overwrite:
        raise FileExistsError(f"{out} exists; choose another --out, or --overwrite to replace it")
    if "fid" in chosen and count <= about["dimension"]:
        problem = f"{count} images do not determine the covariance of {about['dimension']} features"
        print(f"Warning: {problem}; compare this FID only with FIDs of as many images", file=sys.stderr)
    if "kid" in chosen and subset_size == count:
        problem = f"each of the {metrics.SUBSETS} subsets of KID has all {count:,} images, so kid_std is meaningless"
        print(f"Warning: {problem}; take a smaller --kid-subset-size", file=sys.stderr)
    of_subsets = f"; KID of {metrics.SUBSETS} subsets of {subset_size:,}" if "kid" in chosen else ""
    print(f"Comparing {count:,} images with as many of the {options.split} split of {dataset}{of_subsets}")

    torch.manual_seed(options.seed)  # for the subsets of KID
    pixels, device = compared.measured(count), torch.device(options.device)
    ours, our_logits = features.extract(network.network, pixels, options.batch_size, device)
    real, real_logits = features.extract(network.network, compared.real.take(count), options.batch_size, device)
    numbers: dict[str, float] = {}
    result: dict[str, Any] = {"metrics": numbers}
    if "is" in chosen:
        numbers |= metrics.inception_score(our_logits, options.is_splits)
    if "fid" in chosen:
        numbers |= metrics.frechet_distance(ours, real)
    if "kid" in chosen:
        numbers |= metrics.kernel_distance(ours, real, subset_size)
    if "ms-ssim" in chosen:
        numbers |= metrics.similarity(pixels, device)
    if "classes" in chosen:
        shares = {"measured": metrics.class_shares(our_logits), "real": metrics.class_shares(real_logits)}
        numbers |= metrics.class_coverage(shares["measured"], shares["real"])
        result["class_shares"] = {side: share.tolist() for side, share in shares.items()}
    if not all(map(math.isfinite, numbers.values())):
        raise ValueError(f"metrics: expected finite numbers, got {numbers}")
    result["provenance"] = {
        **compared.origin,
        **{name: getattr(options, name) for name in ("split", "seed", "device", "batch_size", "is_splits")},
        "images": {"measured": count, "real": count, "real_available": len(compared.real.order)},
        "values": "bytes, the generated ones rounded",
        "extractor": about,
        "kid": {"subsets": metrics.SUBSETS, "subset_size": subset_size, "kernel": "(a.b / d + 1) ** 3"},
        "ms_ssim": {"resize": f"to {metrics.RESIZED} x {metrics.RESIZED}, bilinear", "pairs": "0 and 1, 2 and 3, ..."},
        "seconds": round(time.perf_counter() - start, 1),
        **provenance.circumstances("examples/evaluate.py", arguments),
    }
    write_text(out, json.dumps(result, indent=2) + "\n")
    print(*(f"{name:22}{number:.6g}" for name, number in numbers.items()), f"Result: {out}", sep="\n")
    return out


def main(arguments: Sequence[str] | None = None) -> Path:
    """Evaluate with the options of a command line, and return the path of the (last) result."""
    options = tyro.cli(Options, description=__doc__, args=arguments, config=(tyro.conf.FlagCreatePairsOff,))
    try:
        if options.run is None:
            return evaluate(options, floor(options, options.floor or ""), arguments)
        paths = [options.run]
        if options.run.is_dir():
            paths = checkpoints.newest_first(options.run / "checkpoints")[: None if options.all else 1]
        if not paths:
            raise ValueError(f"run: there is no checkpoint in {options.run / 'checkpoints'}")
        return [evaluate(options, generated(options, path), arguments) for path in reversed(paths)][-1]
    except (RefusedError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
