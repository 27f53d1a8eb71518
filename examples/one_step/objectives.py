"""The comparison of generated and real features: kernels, references, floors, and the sum over encoders.

With classes, the last columns of the features are the class as a one-hot vector. The kernel is then the product of a
kernel on the features and a kernel on the classes, so it compares the joint distributions.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional as F
from training.errors import RefusedError

from one_step.presets import OneStep
from torch_mmd_losses import (
    EnergyKernel,
    InverseMultiquadricKernel,
    Kernel,
    LaplaceKernel,
    MaternKernel,
    MMDLoss,
    MMDReference,
    RBFKernel,
    UsageWarning,
    drift_loss,
    median_distance,
    relative,
)

OF_WIDTH: Mapping[str, Callable[[float], Kernel]] = {
    "gaussian": RBFKernel,
    "laplace": LaplaceKernel,
    "matern": lambda length: MaternKernel(1.5, length),
    "imq": InverseMultiquadricKernel,
}
"""The kernels that have a width."""

BUDGET = 10.0
"""Sum of the weights of all encoders above their floors, as in Representation Distribution Matching."""

PER_CENTRE = 20
"""Rows per centre that k-means uses."""


@dataclass(frozen=True)
class Rows:
    """The features of the training images.

    Args:
        features: `(n, d)`.
        classes: `(n,)`, or None if the generator has no classes.
        count: number of classes.
    """

    features: Tensor
    classes: Tensor | None
    count: int

    def joint(self) -> Tensor:
        """Return the features, followed by the classes as one-hot columns."""
        return joined(self.features, None if self.classes is None else one_hot(self.classes, self.count))

    def weights(self) -> Tensor | None:
        """Return weights that give all classes the same total, since equally many images of each are generated."""
        if self.classes is None:
            return None
        return 1 / (self.count * self.classes.bincount(minlength=self.count)[self.classes].double())

    def guided(self, strength: float, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Return rows and weights of the guided reference.

        This is `strength` times the data minus `strength - 1` times the same images with random classes.
        """
        rows, weights = self.joint(), self.weights()
        if strength == 1 or weights is None:
            return rows, weights
        of_any = one_hot(torch.randint(self.count, (len(rows),), generator=generator), self.count)
        anything = joined(self.features, of_any.to(rows.device))
        return torch.cat([rows, anything]), torch.cat([strength * weights, (1 - strength) * weights])


def one_hot(classes: Tensor, count: int) -> Tensor:
    """Return classes as vectors `(n, count)`."""
    return F.one_hot(classes, count).float()


def joined(features: Tensor, classes: Tensor | None) -> Tensor:
    """Return features, followed by the columns of the classes `(n, count)` if there are any."""
    return features if classes is None else torch.cat([features, classes.to(features)], 1)


def make_kernel(settings: OneStep, rows: Rows, generator: torch.Generator) -> Kernel:
    """Return the kernel: a sum over the widths in units of the median distance, times a kernel on the classes."""
    if settings.kernel == "energy":
        return EnergyKernel()
    median = median_distance(rows.features, generator=generator)
    of_features = reduce(add, [OF_WIDTH[settings.kernel](factor * median) for factor in settings.factor])
    if rows.classes is None:
        return of_features
    d = rows.features.shape[1]
    # The sum of products has the same values but takes five times as long.
    return of_features.on(slice(0, d)) * RBFKernel(settings.class_width).on(slice(d, d + rows.count))


class Objective:
    """The loss of one encoder's features, and the logged numbers that measure their distance from real features.

    Args:
        name: name of the encoder.
        rows: features of the training images.
        held_out: features of the held-out images `(m, d)`, with the columns of their classes.
        settings: settings of the training.
        fabric: the processes.
    """

    def __init__(self, name: str, rows: Rows, held_out: Tensor, *, settings: OneStep, fabric: Fabric) -> None:
        self.name, self._settings, self._rows = name, settings, rows
        self._world, self._rank = fabric.world_size, fabric.global_rank
        generator = torch.Generator().manual_seed(settings.seed)
        self.kernel = fabric.broadcast(make_kernel(settings, rows, generator))
        whole = self._reference(generator)
        self._peak = float(self.kernel(held_out[:1].double(), held_out[:1].double()))
        self._self_term = float(whole.self_term)
        self._held_out = self._parts(whole, held_out, None)
        self.reference = whole.shard(self._rank, self._world)
        self._drawn = MMDLoss(self.kernel, -1.0, estimator=settings.estimator, global_batch=self._world > 1)
        if rows.classes is not None:
            self._by_class = [(rows.classes == number).nonzero().flatten() for number in range(rows.count)]

    def _reference(self, generator: torch.Generator) -> MMDReference:
        settings = self._settings
        kind = settings.reference if settings.reference != "resampled" else "exact"
        rows, weights = self._rows.guided(settings.guidance, generator)
        options: dict[str, Any] = {"kind": kind, "generator": generator}
        if kind != "fourier":
            options["self_rows"] = settings.self_rows
        if kind == "nystrom":
            options["landmarks"] = settings.landmarks
            if settings.centres and len(rows) > settings.landmarks:
                options["landmarks"] = k_means(rows, settings.landmarks, generator)
        if kind == "fourier":
            options["frequencies"] = settings.frequencies
        return MMDReference(rows, self.kernel, weights=weights, **options).to(self._rows.features.device)

    def loss(self, fake: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss of the joint batch of all processes, with a gradient for the features of this process.

        Args:
            fake: features `(n, d)` of this process's images, with the columns of their classes.
            generator: draws the same real samples in all processes.
        """
        settings = self._settings
        if settings.loss == "drift":
            return self._drift(fake, generator)
        if settings.reference == "resampled":
            real = self._draw(settings.real_batch or settings.batch_size, generator)[self._rank :: self._world]
            return self._drawn.generator(real=real.to(fake), fake=fake)
        return self.reference.mmd2(fake, estimator=settings.estimator)

    def _drift(self, fake: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss of drifting models, with one group for each class."""
        settings, d = self._settings, self._rows.features.shape[1]
        real = self._draw(settings.real_batch or settings.batch_size, generator)
        groups = self._rows.count if self._rows.classes is not None else 1
        # Generated images are ordered 0, 1, 2, ..., 0, 1, 2, ... by class; real ones 0, 0, ..., 1, 1, ...
        generated = fake[:, :d].unflatten(0, (-1, groups)).transpose(0, 1)
        return drift_loss(generated, real[:, :d].to(fake).unflatten(0, (groups, -1))).mean()

    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return `count` real samples, ordered by class, with equally many of each class."""

        def some(found: int) -> Callable[[int], Tensor]:
            return lambda size: torch.randint(found, (size,), generator=generator, device=generator.device)

        rows = self._rows
        device = rows.features.device
        if rows.classes is None:
            return rows.features[some(len(rows.features))(count).to(device)]
        sizes = [len(part) for part in torch.arange(count).tensor_split(rows.count)]
        chosen = torch.cat(
            [numbers[some(len(numbers))(size).to(device)] for numbers, size in zip(self._by_class, sizes, strict=True)]
        )
        return joined(rows.features[chosen], one_hot(rows.classes[chosen], rows.count))

    def floor(self, count: int) -> float:
        """Return the average biased MMD^2 of `count` real images, estimated from the held-out images.

        The estimate may be too small, or negative, if few images are held out.
        """
        attraction, repulsion = self._held_out
        return self._self_term - 2 * attraction + repulsion + self.least_floor(count)

    def least_floor(self, count: int) -> float:
        """Return the floor for a reference that is exactly the distribution. The true floor is at least this large."""
        return (self._peak - self._held_out[1]) / count

    @torch.no_grad()
    def terms(self, fake: Tensor, fabric: Fabric) -> dict[str, float]:
        """Return the biased MMD^2 of the features of the joint batch, its parts, and its ratio to the floor."""
        attraction, repulsion = self._parts(self.reference, fake, fabric)
        count = len(fake) * self._world
        diagonal = (self._peak - repulsion) / count  # mean over all pairs minus mean over different ones
        value = self._self_term - 2 * attraction + repulsion + diagonal
        return {
            "mmd2": value,
            "attraction": attraction,
            "repulsion": repulsion + diagonal,
            "diagonal_share": diagonal / value,
            "ratio_to_real": value / self.floor(count),
        }

    def _parts(self, reference: MMDReference, samples: Tensor, fabric: Fabric | None) -> tuple[float, float]:
        """Return the mean kernel value of a sample and the reference, and that of two different samples."""
        value = float(reference.mmd2(samples))
        attraction = reference.attraction(samples).double().mean()
        if fabric is not None:
            attraction = fabric.all_reduce(attraction)  # type: ignore[assignment]
        count = len(samples) * reference.world
        both = value - self._self_term + 2 * float(attraction)
        return float(attraction), (count * both - self._peak) / (count - 1)


def check_floors(objectives: Sequence[Objective], settings: OneStep) -> None:
    """Warn if floors are too small to be true, or refuse them if the training divides by them.

    Raises:
        RefusedError: if a floor is not above zero with `--balance floors`.
    """
    count = settings.batch_size
    floors = {each.name: (each.floor(count), each.least_floor(count)) for each in objectives}
    # MMD^2 between the reference and the distribution is not negative. If its estimate is, noise dominates it.
    wrong = {name: floor for name, floor in floors.items() if floor[0] < floor[1] / 2}
    if not wrong:
        return
    got = ", ".join(f"{floor:.2g} instead of at least {least:.2g} ({name})" for name, (floor, least) in wrong.items())
    message = (
        f"held_out: expected enough images to estimate MMD^2 of {count} real images, got {got}. Raise --held-out or "
        "lower --batch-size"
    )
    if settings.balance == "floors" and any(floor <= 0 for floor, _ in wrong.values()):
        raise RefusedError(f"{message}, or choose another --balance.")
    warnings.warn(f"{message}. Until then, ratio_to_real in the log is meaningless.", UsageWarning, stacklevel=2)


def total(losses: Sequence[Tensor], floors: Sequence[float], balance: str) -> Tensor:
    """Return the loss of several encoders.

    Args:
        losses: loss of each encoder.
        floors: MMD^2 of as many real images, for each encoder.
        balance: `"none"` adds the losses. `"relative"` divides each loss by its own value. `"floors"` does so too, and
            weights the encoders by :func:`shares`.
    """
    if balance == "none":
        return torch.stack(list(losses)).sum()
    scaled = torch.stack([relative(loss) for loss in losses])
    return scaled.sum() if balance == "relative" else scaled @ shares(losses, floors).to(scaled)


def shares(losses: Sequence[Tensor], floors: Sequence[float]) -> Tensor:
    """Return the weights of the encoders, `(encoders,)`, which add up to `BUDGET`.

    An encoder at or below its floor has weight zero; the others have the larger weights, the further they are above
    it. If none is above its floor, all have the same weight. Representation Distribution Matching uses the difference
    of loss and floor. Here this difference is divided by the floor, because encoders differ by orders of magnitude.
    """
    excess = torch.stack([loss.detach().double() / floor - 1 for loss, floor in zip(losses, floors, strict=True)])
    above = excess > 0
    scores = excess / (2 * excess[above].mean().nan_to_num(1.0))
    weights = torch.where(above, scores, -math.inf).softmax(0)
    return BUDGET * torch.where(above.any(), weights, torch.full_like(weights, 1 / len(losses)))


def k_means(rows: Tensor, count: int, generator: torch.Generator, iterations: int = 10) -> Tensor:
    """Return the centres of k-means, `(count, d)`. A centre without rows restarts at a random row.

    At most `PER_CENTRE * count` random rows are clustered.
    """

    def some(size: int) -> Tensor:
        return rows[torch.randperm(len(rows), generator=generator)[:size].to(rows.device)]

    clustered, centres = some(PER_CENTRE * count), some(count)
    for _ in range(iterations):
        nearest = torch.cat([torch.cdist(part, centres).argmin(1) for part in clustered.split(8192)])
        members = nearest.bincount(minlength=count)
        sums = torch.zeros_like(centres).index_add_(0, nearest, clustered)
        centres = torch.where(members[:, None] > 0, sums / members.clamp(min=1)[:, None], some(count))
    return centres
