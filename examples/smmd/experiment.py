"""The experiments of Arbel et al. (2018) as `dcgan.training` runs them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from dcgan import prepared
from dcgan.batches import Batches
from dcgan.prepared import Report
from dcgan.processes import Group
from dcgan.record import Line
from numpy.typing import NDArray
from torch import Tensor, nn

from smmd import record, sources
from smmd.augmentation import Augmented, to_images
from smmd.configuration import Configuration, resolved
from smmd.gan import GAN, Step
from smmd.judge import make_judge
from smmd.networks import make_generator


class Arbel2018:
    """The experiments of Arbel et al. (2018). Images are in [0, 1] for the networks, and the noise is uniform."""

    name = "smmd"
    settings = Configuration

    def resolved(self, configuration: Configuration) -> Configuration:
        """Put in what None stands for."""
        return resolved(configuration)

    def images(self, configuration: Configuration, root: Path, report: Report) -> NDArray[np.uint8]:
        """Return the prepared images, those of CelebA with their margin."""
        shape = {"size": configuration.size, "channels": configuration.channels}
        return sources.load(configuration.dataset, root, report=report, **shape)

    def real(self, configuration: Configuration, root: Path, split: str, report: Report) -> NDArray[np.uint8]:
        """Return images of the size that is trained with; those of the test split are as in the other experiments."""
        if split == "train":
            return _middle(self.images(configuration, root, report), configuration.size)
        shape = {"size": configuration.size, "channels": configuration.channels}
        return prepared.load(configuration.dataset, root, split=split, report=report, **shape)

    def batches(self, images: NDArray[np.uint8], configuration: Configuration, group: Group) -> Batches | Augmented:
        """Return this process's rows of batches that have `batch_size` images for each process."""
        joint = configuration.batch_size * group.count
        batches = Batches(
            images,
            joint,
            configuration.seed,
            rows=group.rows(joint),
            workers=configuration.workers,
            pinned=(configuration.device or "cpu").startswith("cuda"),
        )
        return Augmented(batches, configuration.size) if sources.margin(configuration.dataset) else batches

    def gan(self, configuration: Configuration, images: NDArray[np.uint8], group: Group) -> GAN:
        """Return the networks, and what judges the generator if the learning rates are to follow that."""
        device = group.device(configuration.device or "cpu")
        judge = make_judge(configuration, _middle(images, configuration.size), device)
        return GAN(configuration, group=group, judge=judge)

    def step(self, gan: GAN, batches: Batches | Augmented) -> Step:
        """Update the critic, several times, and the generator."""
        return gan.step(lambda: to_images(batches.next(), gan.device))

    def measure(self, gan: GAN, step: Step, iterations_per_second: float) -> Line:
        """Return losses, norms, learning rates and the last KID test."""
        return record.measure(gan, step, iterations_per_second)

    def health(self, gan: GAN, step: Step) -> Line:
        """Return losses and the norms of the gradients."""
        return record.health(gan, step)

    def inspect(self, gan: GAN) -> dict[str, Line]:
        """Return the singular values of the critic when they are due."""
        return record.inspect(gan)

    def noise(self, configuration: Configuration, count: int, randomness: torch.Generator) -> Tensor:
        """Return noise, uniform between -1 and 1."""
        return torch.rand(count, configuration.noise, generator=randomness) * 2 - 1

    def generator(self, configuration: Configuration) -> nn.Module:
        """Return the generator."""
        shape = {"channels": configuration.channels, "width": configuration.width}
        return make_generator(configuration.family, configuration.size, noise=configuration.noise, **shape)

    def centred(self, images: Tensor) -> Tensor:
        """Return in [-1, 1] the images in [0, 1] that the generator puts out."""
        return images * 2 - 1


def _middle(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Return the middle of images, `(n, channels, size, size)`."""
    margin = (images.shape[2] - size) // 2
    return images[:, :, margin : margin + size, margin : margin + size]


ARBEL = Arbel2018()
