"""What decides how a training goes: one frozen record, checked when it is made, that can be written as JSON."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from dcgan import fields, losses, penalty
from dcgan.fields import option
from dcgan.formats import Formats, check_format
from dcgan.networks import NOISE, SCALINGS, normalised_layers
from dcgan.precision import DTYPES

FORMATS: Formats = {
    "cifar10": (32, 3),
    "stl10": (48, 3),
    "celeba": (64, 3),
    "lsun": (64, 3),
    "fashion-mnist": (32, 1),
    "folder": None,
    "fake": None,
}
"""The data sets, and what their images are like."""

ACROSS = ("global", "blocks")
"""What the MMD loss of several processes may be: that of the joint batch, or the mean of each one's own."""


@dataclass(frozen=True)
class Configuration:
    """The settings of a training. The defaults are those of the paper's experiments with CIFAR-10.

    None stands for what goes with the other settings; :func:`resolved` puts it in.

    Raises:
        TypeError: if a value is of another type than its field.
        ValueError: if a value is out of range.
    """

    dataset: str = option("cifar10", "images to learn from", choices=tuple(FORMATS))
    data_root: str = option("data", "folder of the data sets", free=True)
    size: int = option(32, "height and width of the images", choices=tuple(SCALINGS))
    channels: int = option(3, "3 for colours, 1 for grey", choices=(1, 3))
    width: int = option(64, "channels of the largest feature maps", least=1)
    noise: int = option(NOISE, "dimension of the noise", least=1)
    loss: str = option("mmd-rep-b", "one of Table 1, or scaled MMD", choices=losses.NAMES)
    lambda_: float | None = option(None, "weight of the repulsion of real scores; by default the loss's own")
    scores: int | None = option(None, "numbers per image from D; by default 16 for MMD losses, else 1", least=1)
    gradient_penalty: float = option(0.0, "weight of the gradient penalty (Appendix D.1: 0.1); 0 is none", least=0)
    normalisation: str | None = option(
        None,
        "spectral norm of the layers of D: pico (the paper's), conv (follows the same norm more closely), matrix (PIM) "
        "or none; by default pico, or none with a penalty or smmd",
    )
    scale: float | None = option(None, "factor C of every normalised layer; by default 1 / 0.55", above=0)
    total_scale: float | None = option(None, "C^K of all K layers instead of C (the authors' 16 to 256)", above=0)
    updates: str = option(
        "simultaneous", "both networks from one forward, or by turns", choices=("simultaneous", "alternating")
    )
    lr_discriminator: float = option(5e-4, "learning rate of D", above=0)
    lr_generator: float = option(2e-4, "learning rate of G", above=0)
    batch_size: int = option(64, "real, and also generated, images in one step, of all processes together", least=2)
    across: str = option(
        "global", "MMD loss of several processes: of the joint batch, or the mean of their own", choices=ACROSS
    )
    iterations: int = option(100_000, "updates of both networks", least=1, free=True)
    ema_decay: float = option(0.999, "of the moving average of G, which draws the samples", least=0, below=1)
    seed: int = option(0, "decides all that is random", least=0, below=2**32)
    precision: str = option("float32", "of forwards and backwards, by autocast", choices=tuple(DTYPES))
    device: str | None = option(None, "where to train; by default a GPU if there is one, else cpu", free=True)
    channels_last: bool = option(False, "lay images out by pixels, as tensor cores prefer", free=True)
    compile: bool = option(False, "compile both networks by torch.compile", free=True)
    workers: int = option(1, "threads that read batches ahead, 0 for none", least=0, free=True)
    tensorboard: bool = option(False, "write the log and the samples for TensorBoard too", free=True)
    log_every: int = option(100, "iterations from one line of the log to the next", least=1, free=True)
    sample_every: int = option(5000, "iterations from one sheet of samples to the next", least=1, free=True)
    checkpoint_every: int = option(1000, "iterations from one checkpoint to the next", least=1, free=True)
    keep_every: int | None = option(
        None,
        "iterations from one checkpoint that stays to the next; by default the newest two stay",
        least=1,
        free=True,
    )

    def __post_init__(self) -> None:
        fields.check(self)


def resolved(configuration: Configuration) -> Configuration:
    """Put in what None stands for.

    Raises:
        ValueError: if settings contradict each other.
    """
    chosen = configuration
    check_format(FORMATS, chosen.dataset, chosen.size, chosen.channels)
    if chosen.gradient_penalty:
        penalty.check_penalised(chosen.loss, chosen.lambda_)
    # Either holds the discriminator's gradient at the images, which is what the spectral norms are for.
    held = bool(chosen.gradient_penalty) or chosen.loss in losses.SCALED
    if held and chosen.compile:
        raise ValueError("compile: expected none beside a gradient penalty or smmd, for which PyTorch cannot compile")
    return replace(
        chosen,
        lambda_=_lambda(chosen),
        scores=chosen.scores or (1 if chosen.gradient_penalty else losses.usual_scores(chosen.loss)),
        normalisation=chosen.normalisation or ("none" if held else "pico"),
        scale=_scale(chosen),
        total_scale=None,
        device=chosen.device or ("cuda" if torch.cuda.is_available() else "cpu"),
    )


def _lambda(chosen: Configuration) -> float | None:
    losses.make_loss(chosen.loss, lambda_=chosen.lambda_)  # which refuses a lambda that it knows nothing of
    if chosen.lambda_ is None and chosen.loss in losses.MMD:
        return losses.MMD[chosen.loss][1]
    return chosen.lambda_


def _scale(chosen: Configuration) -> float:
    if chosen.total_scale is None:
        return 1 / 0.55 if chosen.scale is None else chosen.scale
    if chosen.scale is not None:
        raise ValueError(f"total_scale: expected none beside scale, got {chosen.total_scale} and {chosen.scale}")
    return float(chosen.total_scale ** (1 / normalised_layers(chosen.size)))
