"""Measure the samples of a run: Inception score, FID, KID, MS-SSIM and classes, with where each number comes from."""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Sequence
from pathlib import Path

from dcgan.checkpoints import CheckpointError
from dcgan.sources import MissingDataError
from evaluation import features, images, metrics, provenance, results
from evaluation.comparison import Comparison, floor, generated
from evaluation.options import parser


def main(arguments: Sequence[str] | None = None) -> Path:
    """Do what the command line says, and return the path of the result; of several, the last."""
    reader = parser(__doc__)
    options = reader.parse_args(arguments)
    try:
        for each in _one_by_one(options):
            out, result = evaluate(each)
            result["provenance"] |= provenance.circumstances("examples/evaluate.py", arguments)
            results.write(out, result)
            if not options.quiet:
                print(*(f"{name:22}{value:.6g}" for name, value in result["metrics"].items()), sep="\n")
            print(f"Result: {out}")
    except (CheckpointError, MissingDataError, ModuleNotFoundError, OSError, ValueError) as error:
        reader.error(str(error))
    return out


def evaluate(options: argparse.Namespace) -> tuple[Path, results.Result]:
    """Measure what the command line says, and return the result with the path where it is to be written.

    Raises:
        CheckpointError: if the checkpoint cannot be read.
        FileExistsError: if there is such a result already.
        MissingDataError: if the data set is not there.
        ModuleNotFoundError: if torch-fidelity or torchmetrics is not installed.
        ValueError: if options do not go together, or what a network puts out cannot be used.
    """
    start = time.perf_counter()
    comparison = compared(options)
    real = comparison.real
    extractor = features.load(options.features, inception_weights=options.inception_weights, shape=real.shape)
    count = images.how_many(options.images, comparison.available)
    how = metrics.Settings(
        metrics=options.metrics or metrics.usual(extractor, real.dataset),
        splits=options.is_splits,
        subset_size=options.kid_subset_size or min(metrics.SUBSET_SIZE, count),
        seed=options.seed,
        batch_size=options.batch_size,
        device=options.device,
    )
    metrics.check(how.metrics, extractor, count=count, subset_size=how.subset_size)
    out = options.out or comparison.folder / results.FOLDER / results.name(comparison, extractor, count)
    results.check_free(out, overwrite=options.overwrite)
    if not options.quiet:
        print(f"Comparing {count:,} images with as many of the {real.split} split of {real.dataset}")
    found = metrics.measure(
        extractor,
        comparison.measure(count, how.batch_size, how.device),
        real.take(count),
        how,
    )
    origin = {
        **comparison.origin,
        "dataset": real.dataset,
        "split": real.split,
        "images": {"measured": count, "real": count, "real_available": len(real)},
        "values": "bytes, the generated ones rounded",
        "extractor": extractor.provenance,
        **how.provenance(),
        "seconds": round(time.perf_counter() - start, 1),
    }
    shares = {} if found.class_shares is None else {"class_shares": found.class_shares}
    return out, {"metrics": found.metrics, **shares, "provenance": origin}


def _one_by_one(options: argparse.Namespace) -> list[argparse.Namespace]:
    """Return the command lines that measure one thing each."""
    if not options.all:
        return [options]
    if options.run is None or options.out is not None:
        raise ValueError(f"all: expected a run and no --out, got {'--floor' if options.run is None else '--out'}")
    found = []
    for path in images.checkpoints(options.run)[::-1]:
        found.append(copy.copy(options))
        found[-1].run = path
    return found


def compared(options: argparse.Namespace) -> Comparison:
    """Return what the command line asks to compare."""
    common = {"split": options.split, "seed": options.seed}
    if options.run is not None:
        return generated(images.find(options.run), options.data_root, weights=options.weights, **common)
    root = options.data_root or Path("data")
    return floor(options.floor, root, size=options.size, channels=options.channels, **common)


if __name__ == "__main__":
    main()
