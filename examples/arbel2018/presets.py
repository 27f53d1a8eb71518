"""The settings of Arbel et al.'s experiments: eight methods on three data sets, each with each, and two small ones.

Settings that the paper does not mention come from the authors' code. Where the two differ, the paper holds:

* the critic is updated five times for each update of the generator, always; the code's ten times in the first 20
  iterations and in every 500th are `critic_steps_at_start`;
* the Sobolev GAN constrains the gradient at the data; the code does so at data and generated images,
  `sobolev_measure="mixture"`.

Weights that the paper leaves to the papers it cites are theirs: 10 for the penalty of WGAN-GP (Gulrajani et al., 2017),
1 for both penalties of MMD-GAN-GP-L2 (Binkowski et al., 2018). For the Sobolev GAN it is the default of its authors'
code; neither the paper nor the code of Arbel et al. names one.

The weight 0.1 in the scale on CelebA is that of the model without spectral parametrisation: the paper speaks of its
collapse, and that the parametrisation seemed to prevent it. The authors' settings have 10 for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from training.settings import Settings, check

REDUCTION = {"sngan": 8, "sngan-code": 8, "dcgan": 8, "dcgan5": 32, "resnet": 16}
"""By how much the networks of a family reduce or enlarge the size, which has to be a multiple."""

SCALED, PENALISED = ("smmd", "swgan"), ("wgan", "mmd")
"""Losses that are divided by a bound on the critic and its gradient, and those that can have penalties on them."""


@dataclass(frozen=True, kw_only=True)
class Arbel2018(Settings):
    """The defaults are those of SN-SMMD on CIFAR-10. None stands for what goes with the other settings."""

    dataset: Literal["cifar10", "celeba", "imagenet", "fashion-mnist", "fake"] = "cifar10"  # images to learn from
    family: Literal["sngan", "sngan-code", "dcgan", "dcgan5", "resnet"] = "sngan"  # kind of the networks
    width: int = 64  # channels of the feature maps of the finest resolution
    noise: int = 128  # dimension of the noise, which is uniform between -1 and 1
    scores: int = 1  # numbers per image from the critic
    loss: Literal["gan", "wgan", "mmd", "sobolev", "smmd", "swgan"] = "smmd"  # what is optimised
    sigma: float = 1.0  # bandwidth of the Gaussian kernel of mmd and smmd
    scale_weight: float | None = None
    """weight of the squared gradient in the scale of smmd and swgan, 1 / lambda; by default 10"""
    gradient_penalty: float = 0.0  # weight of the gradient penalty of wgan and mmd; 0 is none
    l2_penalty: float = 0.0
    """weight of the penalty on the critic's output, of wgan and mmd; 0 is none"""
    sobolev_rho: float = 2e-8  # weight of the squared constraint of sobolev, and rate of its multiplier
    sobolev_measure: Literal["data", "mixture"] = "data"  # where sobolev constrains the gradient
    normalisation: Literal["none", "matrix", "conv"] = "matrix"
    """norm that the critic's weights are divided by: none, that of the matrix, or that of the convolution"""
    gamma: Literal["learned", "fixed"] | None = None
    """whether the norms of the layers are learned; by default unless nothing else bounds the gradient of the critic"""
    critic_steps: int = 5  # updates of the critic for one of the generator
    critic_steps_at_start: int | None = None
    """the same in the first 20 iterations and in every 500th, 10 in the authors' code; by default as ever"""
    lr_discriminator: float = 1e-4  # learning rate of the critic, at first
    lr_generator: float = 1e-4  # learning rate of the generator, at first
    clip_norm: float = 1.0  # largest norm of the gradient of each parameter; 0 for any
    batch_size: int = 64  # real, and also generated, images in one step of one process
    iterations: int = 150_000  # updates of the generator
    ema_decay: float = 0.0  # of a moving average of the generator, which draws the samples
    kid_features: str | None = None
    """network for the relative KID tests that lower the learning rates: inception or a path, as for evaluate.py; by
    default the learning rates stay"""
    kid_images: int = 2048  # real, and also generated, images in such a test
    kid_every: int = 2000  # iterations from one relative KID test to the next
    kid_back: int = 20_000  # iterations between the two generators that it compares
    kid_failures: int = 3  # failures in a row after which the learning rates fall
    lr_factor: float = 0.8  # factor by which they fall
    lr_least: float = 1e-6  # learning rate below which they do not fall
    sample_every: int = 1000  # iterations from one sheet of samples to the next
    checkpoint_every: int = 2000  # iterations from one checkpoint to the next
    spectrum_every: int = 10_000  # iterations from one log of the singular values to the next

    FREE: ClassVar = Settings.FREE | {"spectrum_every"}
    FORMATS: ClassVar = Settings.FORMATS | {"celeba": (160, 3), "imagenet": (64, 3)}

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, "size", "width", "noise", "scores", "critic_steps", "critic_steps_at_start", least=1)
        check(self, "kid_every", "kid_back", "kid_failures", "spectrum_every", least=1)
        check(self, "batch_size", least=2)
        check(self, "kid_images", least=4)
        check(self, "sigma", "scale_weight", "sobolev_rho", "lr_discriminator", "lr_generator", above=0)
        check(self, "gradient_penalty", "l2_penalty", "clip_norm", "lr_least", least=0)
        check(self, "lr_factor", above=0, below=1)
        reduction = REDUCTION[self.family]
        if self.size % reduction:
            raise ValueError(f"size: expected a multiple of {reduction} for {self.family}, got {self.size}")
        for name in ("gradient_penalty", "l2_penalty"):
            if getattr(self, name) and self.loss not in PENALISED:
                raise ValueError(f"{name}: expected 0 for {self.loss}, got {getattr(self, name)}")
        if self.scale_weight is not None and self.loss not in SCALED:
            raise ValueError(f"scale_weight: expected none for {self.loss}, got {self.scale_weight}")
        if self.scores != 1 and self.loss not in ("mmd", "smmd"):
            raise ValueError(f"scores: expected 1 for {self.loss}, got {self.scores}")
        memory = self.kid_back // self.kid_every
        if self.kid_back % self.kid_every:
            raise ValueError(f"kid_back: expected a multiple of kid_every, {self.kid_every}; got {self.kid_back}")
        if self.kid_failures > memory:
            raise ValueError(f"kid_failures: expected at most kid_back / kid_every, {memory}; got {self.kid_failures}")


def resolved(settings: Arbel2018) -> Arbel2018:
    """Put in what None stands for, so that a run is saved with all that decides it."""
    # Section 4: models without explicit gradient control have gamma 1, the others learn it.
    free = settings.loss in ("gan", *PENALISED) and not settings.gradient_penalty
    return replace(
        settings,
        scale_weight=(settings.scale_weight or 10.0) if settings.loss in SCALED else None,
        gamma=settings.gamma or ("fixed" if free else "learned"),
        critic_steps_at_start=settings.critic_steps_at_start or settings.critic_steps,
    )


METHODS: Mapping[str, Mapping[str, Any]] = {
    "smmd": {"loss": "smmd", "normalisation": "none"},
    "sn-smmd": {"loss": "smmd", "normalisation": "matrix"},
    "swgan": {"loss": "swgan", "normalisation": "none"},
    "sn-swgan": {"loss": "swgan", "normalisation": "matrix"},
    "mmd-gan-gp-l2": {"loss": "mmd", "normalisation": "none", "gradient_penalty": 1.0, "l2_penalty": 1.0},
    "wgan-gp": {"loss": "wgan", "normalisation": "none", "gradient_penalty": 10.0},
    "sn-gan": {"loss": "gan", "normalisation": "matrix"},
    "sobolev-gan": {"loss": "sobolev", "normalisation": "none"},
}
"""What each method sets."""

RATES, WRITTEN = ("lr_discriminator", "lr_generator"), ("sample_every", "checkpoint_every", "spectrum_every")

DATASETS: Mapping[str, Mapping[str, Any]] = {
    "cifar10": {"family": "sngan"},
    "celeba": {"size": 160, "family": "dcgan5", "workers": 8},
    # The paper trains on three GPUs, each with a batch of 64.
    "imagenet": {"size": 64, "family": "resnet", "workers": 8, **dict.fromkeys(RATES, 2e-4)},
    # Not in the paper: reduced so that one CPU core takes some ten minutes.
    "fashion-mnist": {
        "channels": 1,
        "width": 8,
        "batch_size": 32,
        "iterations": 2000,
        "ema_decay": 0.99,
        "log_every": 20,
        **dict.fromkeys(RATES, 5e-4),
        **dict.fromkeys(WRITTEN, 500),
    },
    # Learns nothing, but runs through everything in seconds.
    "fake": {
        "width": 1,
        "batch_size": 4,
        "critic_steps": 2,
        "iterations": 20,
        "log_every": 5,
        **dict.fromkeys(WRITTEN, 10),
    },
}
"""What each data set sets."""

PRESETS: Mapping[str, Arbel2018] = {
    f"{dataset}-{method}": Arbel2018(
        out=Path("runs") / f"smmd-{dataset}-{method}",
        dataset=dataset,  # type: ignore[arg-type]
        scale_weight=0.1 if (dataset, method) == ("celeba", "smmd") else None,
        **DATASETS[dataset],
        **METHODS[method],
    )
    for dataset in DATASETS
    for method in METHODS
}
"""All settings by name, such as `celeba-sn-smmd`."""
