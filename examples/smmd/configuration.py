"""What decides how a training of Arbel et al. goes: one frozen record, checked when it is made.

Settings that the paper does not mention come from the authors' code. Where the two differ, the paper holds:

* the critic is updated five times for each update of the generator, always; the code's ten times in the first 20
  iterations and in every 500th are `critic_steps_at_start`;
* the Sobolev GAN constrains the gradient at the data; the code does so at data and generated images,
  `sobolev_measure="mixture"`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from dcgan import fields
from dcgan.fields import option
from dcgan.formats import Formats, check_format

from smmd.networks import FAMILIES, NORMALISATIONS

FORMATS: Formats = {
    "cifar10": (32, 3),
    "celeba": (160, 3),
    "imagenet": (64, 3),
    "fashion-mnist": (32, 1),
    "fake": None,
}
"""The data sets, and what their images are like."""

LOSSES = ("gan", "wgan", "mmd", "sobolev", "smmd", "swgan")
"""The losses of the paper's tables; some of them take a penalty."""

SCALED = ("smmd", "swgan")
"""Losses that are divided by what bounds the critic and its gradient."""

PENALISED = ("wgan", "mmd")
"""Losses that can have a gradient penalty, and a penalty on the critic's output."""


@dataclass(frozen=True)
class Configuration:
    """The settings of a training. The defaults are those of SN-SMMD on CIFAR-10.

    None stands for what goes with the other settings; :func:`resolved` puts it in.

    Raises:
        TypeError: if a value is of another type than its field.
        ValueError: if a value is out of range.
    """

    dataset: str = option("cifar10", "images to learn from", choices=tuple(FORMATS))
    data_root: str = option("data", "folder of the data sets", free=True)
    family: str = option("sngan", "kind of the networks", choices=tuple(FAMILIES))
    size: int = option(32, "height and width of the images", least=1)
    channels: int = option(3, "3 for colours, 1 for grey", choices=(1, 3))
    width: int = option(64, "channels of the feature maps of the finest resolution", least=1)
    noise: int = option(128, "dimension of the noise, which is uniform between -1 and 1", least=1)
    scores: int = option(1, "numbers per image from the critic", least=1)
    loss: str = option("smmd", "what is optimised", choices=LOSSES)
    sigma: float = option(1.0, "bandwidth of the Gaussian kernel of mmd and smmd", above=0)
    scale_weight: float | None = option(
        None, "weight of the squared gradient in the scale of smmd and swgan, 1 / lambda; by default 10", above=0
    )
    gradient_penalty: float = option(0.0, "weight of the gradient penalty of wgan and mmd; 0 is none", least=0)
    l2_penalty: float = option(0.0, "weight of the penalty on the critic's output; 0 is none", least=0)
    sobolev_rho: float = option(
        2e-8, "weight of the squared constraint of sobolev, and rate of its multiplier", above=0
    )
    sobolev_measure: str = option("data", "where sobolev constrains the gradient", choices=("data", "mixture"))
    normalisation: str = option("matrix", "norm that the critic's weights have", choices=NORMALISATIONS)
    gamma: str | None = option(
        None,
        "whether the norms of the weights are learned; by default unless nothing else holds the gradient of the critic",
        choices=("learned", "fixed"),
    )
    critic_steps: int = option(5, "updates of the critic for one of the generator", least=1)
    critic_steps_at_start: int | None = option(
        None,
        "the same in the first 20 iterations and in every 500th, 10 in the authors' code; by default as ever",
        least=1,
    )
    lr_discriminator: float = option(1e-4, "learning rate of the critic, at first", above=0)
    lr_generator: float = option(1e-4, "learning rate of the generator, at first", above=0)
    clip_norm: float = option(1.0, "largest norm of the gradient of each parameter; 0 for any", least=0)
    batch_size: int = option(64, "real, and also generated, images in one step of one process", least=2)
    iterations: int = option(150_000, "updates of the generator", least=1, free=True)
    ema_decay: float = option(0.0, "of a moving average of the generator, which draws the samples", least=0, below=1)
    kid_features: str | None = option(
        None,
        "network for the relative KID tests that lower the learning rates: inception or a path, as for evaluate.py; "
        "by default the learning rates stay",
    )
    kid_images: int = option(2048, "real, and also generated, images in such a test", least=4)
    kid_every: int = option(2000, "iterations from one relative KID test to the next", least=1)
    kid_back: int = option(20_000, "iterations between the two generators that it compares", least=1)
    kid_failures: int = option(3, "failures in a row after which the learning rates fall", least=1)
    lr_factor: float = option(0.8, "factor by which they fall", above=0, below=1)
    lr_least: float = option(1e-6, "learning rate below which they do not fall", least=0)
    seed: int = option(0, "decides all that is random", least=0, below=2**32)
    device: str | None = option(None, "where to train; by default a GPU if there is one, else cpu", free=True)
    workers: int = option(1, "threads that read batches ahead, 0 for none", least=0, free=True)
    tensorboard: bool = option(False, "write the log and the samples for TensorBoard too", free=True)
    log_every: int = option(100, "iterations from one line of the log to the next", least=1, free=True)
    sample_every: int = option(1000, "iterations from one sheet of samples to the next", least=1, free=True)
    checkpoint_every: int = option(2000, "iterations from one checkpoint to the next", least=1, free=True)
    keep_every: int | None = option(
        None,
        "iterations from one checkpoint that stays to the next; by default the newest two stay",
        least=1,
        free=True,
    )
    spectrum_every: int = option(
        10_000, "iterations from one log of the singular values to the next", least=1, free=True
    )

    def __post_init__(self) -> None:
        fields.check(self)


def resolved(configuration: Configuration) -> Configuration:
    """Put in what None stands for.

    Raises:
        ValueError: if settings contradict each other.
    """
    chosen = configuration
    _check_images(chosen)
    _check_loss(chosen)
    if chosen.kid_back % chosen.kid_every:
        raise ValueError(f"kid_back: expected a multiple of kid_every, {chosen.kid_every}; got {chosen.kid_back}")
    if chosen.kid_failures > chosen.kid_back // chosen.kid_every:
        raise ValueError(
            f"kid_failures: expected at most kid_back / kid_every, {chosen.kid_back // chosen.kid_every}; "
            f"got {chosen.kid_failures}"
        )
    # Section 4: models without explicit gradient control have gamma 1, the others learn it.
    free = chosen.loss in ("gan", *PENALISED) and not chosen.gradient_penalty
    return replace(
        chosen,
        scale_weight=(chosen.scale_weight or 10.0) if chosen.loss in SCALED else None,
        gamma=chosen.gamma or ("fixed" if free else "learned"),
        critic_steps_at_start=chosen.critic_steps_at_start or chosen.critic_steps,
        device=chosen.device or ("cuda" if torch.cuda.is_available() else "cpu"),
    )


def _check_images(chosen: Configuration) -> None:
    check_format(FORMATS, chosen.dataset, chosen.size, chosen.channels)
    reduction = FAMILIES[chosen.family].reduction
    if chosen.size % reduction:
        raise ValueError(f"size: expected a multiple of {reduction} for {chosen.family}, got {chosen.size}")


def _check_loss(chosen: Configuration) -> None:
    for name in ("gradient_penalty", "l2_penalty"):
        if getattr(chosen, name) and chosen.loss not in PENALISED:
            raise ValueError(f"{name}: expected 0 for {chosen.loss}, got {getattr(chosen, name)}")
    if chosen.scale_weight is not None and chosen.loss not in SCALED:
        raise ValueError(f"scale_weight: expected none for {chosen.loss}, got {chosen.scale_weight}")
    if chosen.scores != 1 and chosen.loss not in ("mmd", "smmd"):
        raise ValueError(f"scores: expected 1 for {chosen.loss}, got {chosen.scores}")
