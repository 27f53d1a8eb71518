"""What is compared with real images: those of a generator, or other real images, which gives the floor of a metric."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from dcgan.configuration import FORMATS

from evaluation.images import Checkpoint, Pixels, RealImages, generate, silent
from evaluation.provenance import digest_of_file


@dataclass(frozen=True)
class Comparison:
    """Images beside real ones."""

    real: RealImages
    """The real images."""
    available: int
    """How many there are on the side that has fewer."""
    measure: Callable[[int, int, torch.device], Pixels]
    """Gives as many images to be measured as asked for, made in batches of a size on a device."""
    folder: Path
    """The run that results belong to."""
    label: str
    """What is measured, for the name of a result."""
    origin: dict[str, Any]
    """What to write down about the images that are measured."""


def generated(checkpoint: Checkpoint, root: Path | None, *, weights: str, split: str, seed: int) -> Comparison:
    """Return the images of a generator beside real ones.

    Args:
        checkpoint: the checkpoint that has it.
        root: the folder of the data sets; None for that of the run.
        weights: which of its generators.
        split: that of the real images, `train` or `test`.
        seed: decides noise and the order of the real images.

    Raises:
        MissingDataError: if the data set is not there.
        ValueError: if it has no such split.
    """
    chosen = checkpoint.configuration
    shape = (chosen.channels, chosen.size, chosen.size)
    folder = root or Path(chosen.data_root)
    images = checkpoint.experiment.real(chosen, folder, split, silent)
    real = RealImages(chosen.dataset, folder, shape, split=split, seed=seed, images=images)
    iteration = checkpoint.state["iteration"]
    return Comparison(
        real,
        available=len(real),
        measure=partial(generate, checkpoint, weights, seed),
        folder=checkpoint.run,
        label=f"iteration-{iteration:08d}-{weights}",
        origin={
            "measured": "generated images",
            "checkpoint": {
                "path": checkpoint.path.relative_to(checkpoint.run).as_posix(),
                "iteration": iteration,
                "weights": weights,
                "sha256": digest_of_file(checkpoint.path),
            },
            "configuration": dataclasses.asdict(chosen),
        },
    )


def floor(dataset: str, root: Path, *, size: int, channels: int, split: str, seed: int) -> Comparison:
    """Return real images beside other real ones: training images beside test images, or two halves of a split.

    Args:
        dataset: the name of the data set.
        root: the folder of the data sets.
        size: height and width of the images, for data sets that leave it open.
        channels: 3 for colours, 1 for grey, for the same.
        split: `test` for training images beside test images, `train` for two halves of the training images.
        seed: decides the order of the images.

    Raises:
        MissingDataError: if the data set is not there.
        ValueError: if it has no such split.
    """
    size, channels = FORMATS[dataset] or (size, channels)
    shape = (channels, size, size)
    real = RealImages(dataset, root, shape, split=split, seed=seed)
    folder = Path("runs") / f"real-{dataset}"
    if split == "train":
        return Comparison(
            real,
            available=len(real) // 2,
            measure=lambda count, *_: real.take(count, start=count),
            folder=folder,
            label="real-half",
            origin={"measured": "other real images of the same split"},
        )
    others = RealImages(dataset, root, shape, split="train", seed=seed)
    return Comparison(
        real,
        available=min(len(real), len(others)),
        measure=lambda count, *_: others.take(count),
        folder=folder,
        label="real-train",
        origin={"measured": "real images of the train split"},
    )
