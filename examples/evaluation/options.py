"""The command line of the evaluation."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from dcgan.configuration import FORMATS
from dcgan.sources import SPLITS

from evaluation.arguments import integer
from evaluation.images import PAPER, WEIGHTS
from evaluation.metrics import METRICS


def parser(description: str) -> argparse.ArgumentParser:
    """Return the reader of the command line."""
    reader = argparse.ArgumentParser(description=description.splitlines()[0], allow_abbrev=False)
    add = reader.add_argument
    what = reader.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "run", type=Path, nargs="?", help="folder of a run, whose newest checkpoint counts, or a checkpoint"
    )
    what.add_argument(
        "--floor",
        metavar="DATASET",
        choices=tuple(FORMATS),
        help="measure real images instead: training images beside those of --split test, or for --split train one half "
        "beside the other",
    )
    add("--all", action="store_true", help="measure all checkpoints of the run, the oldest first")
    add("--features", default="inception", metavar="inception|PATH", help="network that gives features (%(default)s)")
    add("--inception-weights", type=Path, metavar="PATH", help="weights of Inception (downloaded by torch-fidelity)")
    add("--metrics", type=_metrics, help=f"any of {','.join(METRICS)} (those that the features and the paper have)")
    add("--images", type=integer(2), help=f"generated and also real images ({PAPER:,}, or all if there are fewer)")
    add("--split", choices=SPLITS, default="train", help="of the real images (%(default)s, as in the paper)")
    add("--weights", choices=tuple(WEIGHTS), default="averaged", help="generator to draw with (%(default)s)")
    add("--is-splits", type=integer(1), default=1, help="of the Inception score (%(default)s, as in the paper)")
    add("--kid-subset-size", type=integer(2), help="of the 100 subsets of KID (1,000, or all if there are fewer)")
    add("--data-root", type=Path, help="folder of the data sets (that of the run, or data)")
    add("--size", type=integer(8), default=32, help="of images of --floor folder or fake (%(default)s)")
    add("--channels", type=int, choices=(1, 3), default=3, help="of images of --floor folder or fake (%(default)s)")
    add("--batch-size", type=integer(1), default=64, help="images that go through a network at once (%(default)s)")
    add("--device", type=_device, default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    add("--seed", type=integer(0, 2**32 - 1), default=0, help="decides noise, real images and subsets (%(default)s)")
    add("--out", type=Path, help="file of the result (in the folder evaluations of the run)")
    add("--overwrite", action="store_true", help="replace the result if it exists")
    add("--quiet", action="store_true", help="print warnings, and where the result is")
    return reader


def _metrics(text: str) -> tuple[str, ...]:
    chosen = tuple(text.split(","))
    unknown = [name for name in chosen if name not in METRICS]
    if unknown:
        raise argparse.ArgumentTypeError(f"expected some of {','.join(METRICS)}; got {','.join(unknown)}")
    return chosen


def _device(text: str) -> torch.device:
    try:
        device = torch.device(text)
        torch.empty(1, device=device)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise argparse.ArgumentTypeError(str(error).splitlines()[0]) from error
    if device.type not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"expected cpu or a CUDA device, which torch-fidelity can use; got {text}")
    return device
