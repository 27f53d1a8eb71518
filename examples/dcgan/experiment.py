"""What a training has to know of a paper's experiments; the loop, the folder and checkpoints are the same for all."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dcgan import prepared, record
from dcgan.batches import Batches, to_images
from dcgan.configuration import Configuration, resolved
from dcgan.gan import GAN, Step
from dcgan.networks import make_generator
from dcgan.prepared import Report
from dcgan.processes import Group
from dcgan.record import Line

C = TypeVar("C")
G = TypeVar("G")
B = TypeVar("B")


class Experiment(Protocol[C, G, B]):
    """The experiments of a paper: `C` is its configuration, `G` its networks in training, and `B` its batches."""

    name: str
    """By which checkpoints say whose they are."""
    settings: type[C]
    """The configuration."""

    def resolved(self, configuration: C) -> C:
        """Put in what None stands for; raise `ValueError` if settings contradict each other."""

    def images(self, configuration: C, root: Path, report: Report) -> NDArray[np.uint8]:
        """Return the images to learn from, below a folder of data sets; errors are those of `dcgan.prepared.load`."""

    def real(self, configuration: C, root: Path, split: str, report: Report) -> NDArray[np.uint8]:
        """Return images of a split to compare with generated ones, of the same size; errors are the same."""

    def batches(self, images: NDArray[np.uint8], configuration: C, group: Group) -> B:
        """Return a process's batches of these images."""

    def gan(self, configuration: C, images: NDArray[np.uint8], group: Group) -> G:
        """Return the networks at the start of a training."""

    def step(self, gan: G, batches: B) -> Any:  # noqa: ANN401
        """Train one iteration, and return what it saw."""

    def measure(self, gan: G, step: Any, iterations_per_second: float) -> Line:  # noqa: ANN401
        """Return the line of the log for the last iteration, or raise `NotFiniteError`; all processes have to ask."""

    def health(self, gan: G, step: Any) -> Line:  # noqa: ANN401
        """Return as much of it as says whether the networks are lost, or raise `NotFiniteError` if they are."""

    def inspect(self, gan: G) -> dict[str, Line]:
        """Return lines for further logs that are due, by the names of the logs."""

    def noise(self, configuration: C, count: int, randomness: torch.Generator) -> Tensor:
        """Return noise for samples, on the CPU."""

    def generator(self, configuration: C) -> nn.Module:
        """Return the generator, for the weights in a checkpoint."""

    def centred(self, images: Tensor) -> Tensor:
        """Return in [-1, 1] what the generator puts out."""


class Wang2019:
    """The experiments of Wang et al. (2019)."""

    name = "dcgan"
    settings = Configuration

    def resolved(self, configuration: Configuration) -> Configuration:
        """Put in what None stands for."""
        return resolved(configuration)

    def images(self, configuration: Configuration, root: Path, report: Report) -> NDArray[np.uint8]:
        """Return the prepared images."""
        return self.real(configuration, root, "train", report)

    def real(self, configuration: Configuration, root: Path, split: str, report: Report) -> NDArray[np.uint8]:
        """Return the prepared images of a split."""
        shape = {"size": configuration.size, "channels": configuration.channels}
        return prepared.load(configuration.dataset, root, split=split, report=report, **shape)

    def batches(self, images: NDArray[np.uint8], configuration: Configuration, group: Group) -> Batches:
        """Return this process's rows of the joint batches."""
        return Batches(
            images,
            configuration.batch_size,
            configuration.seed,
            rows=group.rows(configuration.batch_size),
            workers=configuration.workers,
            pinned=(configuration.device or "cpu").startswith("cuda"),
        )

    def gan(self, configuration: Configuration, images: NDArray[np.uint8], group: Group) -> GAN:
        """Return the networks, which need no images to start with."""
        return GAN(configuration, group)

    def step(self, gan: GAN, batches: Batches) -> Step:
        """Update both networks once."""
        return gan.step(to_images(batches.next(), gan.device))

    def measure(self, gan: GAN, step: Step, iterations_per_second: float) -> Line:
        """Return losses, norms and mean kernel values."""
        return record.measure(gan, step, gan.configuration.batch_size * iterations_per_second)

    def health(self, gan: GAN, step: Step) -> Line:
        """Return losses and the norms of the gradients."""
        return record.health(gan, step)

    def inspect(self, gan: GAN) -> dict[str, Line]:
        """Return nothing: the log has all."""
        return {}

    def noise(self, configuration: Configuration, count: int, randomness: torch.Generator) -> Tensor:
        """Return standard normal noise."""
        return torch.randn(count, configuration.noise, generator=randomness)

    def generator(self, configuration: Configuration) -> nn.Module:
        """Return the generator."""
        shape = {"channels": configuration.channels, "width": configuration.width}
        return make_generator(configuration.size, noise=configuration.noise, **shape)

    def centred(self, images: Tensor) -> Tensor:
        """Return the images, which are in [-1, 1]."""
        return images


WANG = Wang2019()
