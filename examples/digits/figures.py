"""Pictures of a run: sheets of samples, how the samples came about, and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imsave
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

GAP = 3
"""Pixels of paper between two digits."""

Curves = Mapping[str, Sequence[float]]


def sheet(images: Tensor, columns: int) -> Tensor:
    """Lay out images `(n, 1, h, w)` in [-1, 1] in rows on one sheet of paper, a matrix in [-1, 1]."""
    padded = F.pad(images[: len(images) // columns * columns, 0], [GAP] * 4, value=-1)
    return torch.cat([torch.cat(list(row), dim=1) for row in padded.split(columns)])


def save_sheet(path: Path, images: Tensor, columns: int = 8) -> None:
    """Save images `(n, 1, h, w)` as a PNG, ink dark on light paper, at twice their size."""
    pixels = sheet(images, columns).repeat_interleave(2, 0).repeat_interleave(2, 1)
    imsave(path, pixels.numpy(), cmap="gray_r", vmin=-1, vmax=1)


def save_strip(path: Path, panels: Mapping[str, Tensor], rows: int = 6, columns: int = 4) -> None:
    """Save titled panels side by side, each with the first `rows * columns` of its images `(n, 1, h, w)`."""
    figure = Figure(figsize=(1.45 * len(panels), 2.6), dpi=100, layout="constrained")
    for axes, (title, images) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        axes.imshow(sheet(images[: rows * columns], columns).numpy(), cmap="gray_r", vmin=-1, vmax=1)
        axes.set_title(title, fontsize=9)
        axes.set(xticks=[], yticks=[])
    _save(figure, path)


def save_curves(path: Path, metrics: Curves, distances: Mapping[int, float], real_halves: float) -> None:
    """Save the losses, the kernel means and the Frechet distances over the steps.

    Args:
        path: where to save.
        metrics: columns of the metrics file.
        distances: Frechet distance of the samples by step.
        real_halves: the distance between two halves of the real data, drawn for comparison.
    """
    figure = Figure(figsize=(12, 3.6), dpi=100, layout="constrained")
    losses, means, frechet = figure.subplots(1, 3)
    _lines(losses, metrics, {"loss_discriminator": "discriminator", "loss_generator": "generator (MMD²)"})
    losses.margins(y=0.2)
    _finish(losses, "Losses")
    pairs = {"k_rr": "real, real", "k_rf": "real, fake", "k_ff": "fake, fake", "saturated": "share saturated"}
    _lines(means, metrics, pairs)
    means.set_ylim(0, 1)
    _finish(means, "Mean kernel values")
    frechet.plot(list(distances), list(distances.values()), "o-", label="samples")
    frechet.axhline(real_halves, color="black", linestyle="--", label="two halves of the data")
    frechet.set_yscale("log")
    _finish(frechet, "Frechet distance to the data")
    _save(figure, path)


def _lines(axes: Axes, metrics: Curves, labels: Mapping[str, str]) -> None:
    for number, (key, label) in enumerate(labels.items()):
        axes.plot(metrics["step"], metrics[key], color=f"C{number}", alpha=0.25, linewidth=0.8)
        axes.plot(metrics["step"], _smooth(metrics[key]), color=f"C{number}", label=label)


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, ncols=2, loc="upper center")


def _smooth(values: Sequence[float], reach: int = 5) -> list[float]:
    """Return means over windows that end `reach` values before and after each value, or where the values end."""
    windows = (values[max(0, i - reach) : i + reach + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def _save(figure: Figure, path: Path) -> None:
    # A palette makes the file half as large, so that it can stand on a web page.
    with BytesIO() as buffer:
        figure.savefig(buffer)
        Image.open(buffer).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
