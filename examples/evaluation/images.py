"""The images that are compared, as bytes: drawn by the generator in a checkpoint, or real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from dcgan import prepared
from dcgan.batches import to_pixels
from dcgan.checkpoints import Checkpoints, State, load
from dcgan.experiment import WANG, Experiment
from dcgan.fields import from_settings
from numpy.typing import NDArray
from smmd.experiment import ARBEL

Pixels = NDArray[np.uint8]
"""Images `(n, channels, size, size)` of unsigned bytes."""

PAPER = 49_984
"""How many images of either kind the authors compare: 781 batches of 64."""

WEIGHTS = {"averaged": "averaged", "current": "generator"}
"""Names of the two generators in a checkpoint: the moving average, and the one that is trained."""

EXPERIMENTS: dict[str, Experiment[Any, Any, Any]] = {experiment.name: experiment for experiment in (WANG, ARBEL)}
"""Whose checkpoints can be measured, by what they say of themselves."""


class Checkpoint(NamedTuple):
    """A checkpoint, and the run that it is of."""

    path: Path
    run: Path
    state: State
    experiment: Experiment[Any, Any, Any]
    configuration: Any


def checkpoints(run: Path) -> list[Path]:
    """Return the checkpoints of a run, the newest first; raise `ValueError` if there is none."""
    folder = run / "checkpoints"
    found = Checkpoints(folder).paths()
    if not found:
        raise ValueError(f"run: there is no checkpoint in {folder}")
    return found


def find(path: Path) -> Checkpoint:
    """Return the checkpoint at a path, or the newest one of the run in a folder.

    Raises:
        CheckpointError: if it cannot be read.
        ValueError: if there is none, or if its configuration cannot be used.
    """
    if path.is_dir():
        run, path = path, checkpoints(path)[0]
    else:
        run = next((folder for folder in path.parents if (folder / "configuration.json").exists()), path.parent)
    state = load(path)
    name = state.get("experiment", WANG.name)  # which older checkpoints do not name
    if not isinstance(name, str) or name not in EXPERIMENTS:
        raise ValueError(f"run: expected a checkpoint of {' or '.join(EXPERIMENTS)}, got one of {name}")
    experiment = EXPERIMENTS[name]
    try:
        configuration = from_settings(experiment.settings, state.get("configuration"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"run: the configuration in {path} cannot be used: {error}") from error
    return Checkpoint(path, run, state, experiment, configuration)


def generate(
    checkpoint: Checkpoint, weights: str, seed: int, count: int, batch_size: int, device: torch.device
) -> Pixels:
    """Return images of noise that depends on the seed only.

    Raises:
        ValueError: if the weights do not fit the configuration's generator, or if images have NaN or infinite values.
    """
    experiment = checkpoint.experiment
    generator = experiment.generator(checkpoint.configuration)
    try:
        generator.load_state_dict(checkpoint.state[WEIGHTS[weights]])
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        raise ValueError(f"run: the {weights} generator in {checkpoint.path} cannot be used: {error}") from error
    generator.to(device).eval()
    noise = experiment.noise(checkpoint.configuration, count, torch.Generator().manual_seed(seed))
    parts = []
    with torch.inference_mode():
        for part in noise.split(batch_size):
            images = experiment.centred(generator(part.to(device)))
            if not images.isfinite().all():
                raise ValueError(f"The generator in {checkpoint.path} returns images with NaN or infinite values")
            parts.append(to_pixels(images).cpu())
    return torch.cat(parts).numpy()


class RealImages:
    """Real images of a data set, drawn in a random order.

    Args:
        dataset: the name of the data set.
        root: the folder of the data sets.
        shape: the shape of an image, `(channels, size, size)`.
        split: `train` or `test`.
        seed: decides the order.
        images: the images, if not those that `dcgan.prepared` has of that data set.

    Raises:
        MissingDataError: if the data set is not there.
        ValueError: if it has no such split.
    """

    def __init__(
        self,
        dataset: str,
        root: Path,
        shape: tuple[int, int, int],
        *,
        split: str,
        seed: int,
        images: Pixels | None = None,
    ) -> None:
        self.dataset, self.shape, self.split, self.seed = dataset, shape, split, seed
        channels, size, _ = shape
        if images is None:
            images = prepared.load(dataset, root, size=size, channels=channels, split=split, report=silent)
        self._images = images
        self._order = np.random.default_rng(seed).permutation(len(self._images))

    def __len__(self) -> int:
        return len(self._images)

    def take(self, count: int, start: int = 0) -> Pixels:
        """Return `count` images from the place `start` in the random order."""
        # Sorted, the reads go through the file in one direction.
        return np.asarray(self._images[np.sort(self._order[start : start + count])])


def how_many(asked: int | None, available: int) -> int:
    """Return how many images to compare: as many as asked, else as in the paper, or all if there are fewer.

    Raises:
        ValueError: if more are asked for than there are.
    """
    if asked is not None and asked > available:
        raise ValueError(f"images: expected at most {available:,}, the real images that there are; got {asked:,}")
    return min(PAPER, available) if asked is None else asked


def silent(message: str) -> None:
    """Say nothing."""
