"""What a run leaves behind while it goes: its configuration, a line of JSON now and then, and sheets of samples."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from dcgan.atomic import PARTIAL, append_text, replacing, write_text
from dcgan.batches import to_pixels
from dcgan.board import Board
from dcgan.fields import to_json
from dcgan.gan import GAN, Step, gradient_norm
from dcgan.precision import SMALLEST_SCALE
from dcgan.reading import read_lines
from torch_mmd_losses import MMDLoss, ScaledMMDLoss, spectral_norms

SAMPLES = 64
"""Images on a sheet of samples."""

GAP = 2
"""Pixels between two of them."""

Line = dict[str, Any]


class NotFiniteError(Exception):
    """A number of the training is infinite or no number; the message says what to try."""


class Artist(Protocol):
    """Networks that can draw samples."""

    iteration: int

    def sample(self, noise: Tensor) -> Tensor:
        """Return images `(n, channels, size, size)` in [-1, 1] of noise `(n, dimension)`."""


class Record:
    """The folder of a run.

    Args:
        folder: where it is; made if need be.
        configuration: the resolved configuration, which is written at once.
        noise: of the sheets of samples, `(n, dimension)`.
        iteration: the iteration that the run goes on from; what was logged after it is dropped.

    Raises:
        DamagedFileError: if a line of a log is damaged.
        MissingBoardError: if it is to be written for TensorBoard, which is not installed.
    """

    def __init__(self, folder: Path, configuration: Any, noise: Tensor, iteration: int) -> None:  # noqa: ANN401
        self._folder = folder
        self._noise = noise
        self._board = Board(folder / "tensorboard", iteration) if configuration.tensorboard else None
        # The lock of the folder is held, so that these are of processes that were killed.
        for name in ("samples/*", "configuration.json.*", "*.jsonl.*"):
            for partial in folder.glob(f"{name}{PARTIAL}"):
                partial.unlink()
        write_text(folder / "configuration.json", to_json(configuration) + "\n")
        for log in folder.glob("*.jsonl"):
            kept = [line for line in read_log(log) if line["iteration"] <= iteration]
            write_text(log, "".join(json.dumps(line) + "\n" for line in kept))

    def log(self, line: Line) -> None:
        """Append a line to the log."""
        self.append("log", line)
        if self._board is not None:
            self._board.log(line)

    def append(self, name: str, line: Line) -> None:
        """Append a line with its `iteration` to a log of another name."""
        append_text(self._folder / f"{name}.jsonl", json.dumps(line) + "\n")

    def draw(self, gan: Artist) -> None:
        """Save a sheet of samples of the same noise as ever."""
        with replacing(self._folder / "samples" / f"iteration-{gan.iteration:08d}.png") as partial:
            samples = sheet(gan.sample(self._noise).cpu())
            samples.save(partial, format="png")
        if self._board is not None:
            self._board.draw(samples, gan.iteration)


def read_log(path: Path) -> list[Line]:
    """Return the lines of a log, none if it is not there; a last one that was cut short is left out.

    Raises:
        DamagedFileError: if a line is damaged.
    """
    return read_lines(path, growing=True, iteration=int) if path.exists() else []


def measure(gan: GAN, step: Step, images_per_second: float) -> Line:
    """Return the line of the log for the last update; all processes have to ask.

    Raises:
        NotFiniteError: if a number of it is infinite or no number.
    """
    line: Line = {"iteration": gan.iteration, **health(gan, step)}
    watched = gan.loss
    if isinstance(watched, ScaledMMDLoss):  # whose own terms need the images
        watched = MMDLoss(watched.kernel, lambda_=-1.0, global_batch=watched.global_batch)
    if isinstance(watched, MMDLoss):
        terms = watched.terms(real=step.real, fake=step.fake)
        line |= {name: gan.group.mean(value).item() for name, value in terms._asdict().items()}
    if gan.configuration.normalisation != "none":
        line["sigma"] = {name: sigma.item() for name, sigma in spectral_norms(gan.discriminator).items()}
    return line | {"images_per_second": round(images_per_second, 1)}


def health(gan: GAN, step: Step) -> Line:
    """Return the losses, the norms of the gradients and, for float16, the scales of the losses of the last update.

    The norm of a gradient that overflowed in float16 is None: its update was left out, and the scale was lowered.
    Losses are means over the processes, all of which have to ask, and get the same.

    Raises:
        NotFiniteError: if a loss or another gradient is infinite or no number, or a scale has fallen to nothing.
    """
    line: Line = {
        "loss_discriminator": gan.group.mean(step.loss_discriminator).item(),
        "loss_generator": gan.group.mean(step.loss_generator).item(),
        "gradient_norm_discriminator": gradient_norm(gan.discriminator).item(),
        "gradient_norm_generator": gradient_norm(gan.generator).item(),
    }
    for name, learner in (("discriminator", gan.learner_d), ("generator", gan.learner_g)):
        if learner.scaler.is_enabled():
            norm, scale = f"gradient_norm_{name}", learner.scaler.get_scale()
            line[f"scale_{name}"] = scale
            if scale >= SMALLEST_SCALE and not math.isfinite(line[norm]):
                line[norm] = None
    advice = "a smaller --scale or --total-scale, the bounded kernel (--loss mmd-rep-b), "
    if gan.configuration.precision != "float32":
        advice += "--precision float32, "
    check_finite(line, gan.iteration, advice)
    return line


def check_finite(line: Line, iteration: int, advice: str) -> None:
    """Raise `NotFiniteError` if a number of a line is infinite or no number, with what may help beside lower rates."""
    for name, number in line.items():
        if number is not None and not math.isfinite(number):
            raise NotFiniteError(
                f"Stopped at iteration {iteration}, where {name} is {number}. Try lower learning rates "
                f"(--lr-discriminator, --lr-generator), {advice}or another --seed; the last checkpoint is from before."
            )


def sheet(images: Tensor, columns: int = 8) -> Image.Image:
    """Lay out images `(n, channels, h, w)` in [-1, 1] in rows; a last row that is not full is left out."""
    padded = F.pad(to_pixels(images[: len(images) // columns * columns]), [GAP] * 4, value=255)
    rows = [torch.cat(list(row), dim=2) for row in padded.split(columns)]
    pixels = torch.cat(rows, dim=1).permute(1, 2, 0)
    return Image.fromarray(pixels.squeeze(2).numpy() if pixels.shape[2] == 1 else pixels.numpy())
