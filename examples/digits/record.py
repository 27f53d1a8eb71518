"""What a run writes down: metrics and samples on its way, figures and a result at its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from digits import figures, runs
from digits.features import FrechetDistance


class Result(NamedTuple):
    """Frechet distances to one half of the data, each between equally many images."""

    before: float
    """Of samples before training."""
    after: float
    """Of samples after training."""
    real_halves: float
    """Of the other half of the data: what there is to gain ends about here."""

    @property
    def ratio(self) -> float:
        """How many times lower the distance is after training."""
        return self.before / self.after

    def __str__(self) -> str:
        return (
            f"The samples came {self.ratio:.0f} times closer to the data: Frechet distance {self.before:.1f} before "
            f"training, {self.after:.1f} after it, {self.real_halves:.1f} between two halves of the data."
        )


class Record:
    """The written side of a run.

    Args:
        folder: where to write.
        frechet: measures how far samples are from the first half of the data.
        other_half: the second half of the data, `(n, 1, 32, 32)`.
    """

    def __init__(self, folder: Path, frechet: FrechetDistance, other_half: Tensor) -> None:
        self.folder = folder
        self.frechet = frechet
        self.real = other_half
        self.real_halves = frechet(other_half)
        self.samples: dict[int, Tensor] = {}
        self.distances: dict[int, float] = {}
        self.lines: list[Mapping[str, float]] = []
        (folder / "samples").mkdir(exist_ok=True)

    def snapshot(self, step: int, images: Tensor) -> None:
        """Save samples `(n, 1, 32, 32)` of a step, and measure how far they are from the data."""
        figures.save_sheet(self.folder / "samples" / f"step-{step:06d}.png", images[:64])
        self.samples[step] = images
        self.distances[step] = self.frechet(images)

    def metrics(self, line: Mapping[str, float]) -> None:
        """Append one line to the metrics file."""
        runs.append_line(self.folder / "metrics.jsonl", line)
        self.lines.append(line)

    def result(self) -> Result:
        """Return the distances before and after training."""
        return Result(self.distances[min(self.distances)], self.distances[max(self.distances)], self.real_halves)

    def draw(self) -> None:
        """Save the strip of samples and the curves."""
        panels = {f"step {step}\nFrechet {self.distances[step]:.1f}": images for step, images in self.samples.items()}
        panels[f"real digits\nFrechet {self.real_halves:.1f}"] = self.real
        figures.save_strip(self.folder / "samples.png", panels)
        metrics = {key: [line[key] for line in self.lines] for key in self.lines[0]}
        figures.save_curves(self.folder / "curves.png", metrics, self.distances, self.real_halves)

    def summary(self) -> dict[str, object]:
        """Return what the summary says about the samples."""
        result = self.result()
        return {
            "frechet_distance": {
                **result._asdict(),
                "ratio": result.ratio,
                "images_per_side": len(self.real),
                "note": "Samples and the second half of the digits against the first half, always with the same number "
                "of images on both sides, since few images bias the distance; features of a small classifier of the "
                "same digits, so the values compare to nothing outside this demo. The GAN trains on both halves.",
            },
            "frechet_distance_by_step": self.distances,
        }
