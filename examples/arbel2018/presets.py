"""The settings of Arbel et al.'s experiments: eight methods on three data sets, and on two small ones for trials.

`docs/arbel2018.md` has the sources of the settings, and where the authors' code differs from the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro
from training.settings import REDUCED, TRIAL, Settings, check

REDUCTION = {"sngan": 8, "dcgan": 8, "dcgan5": 32, "resnet": 16}
"""Ratio of the sizes of the largest and the smallest feature maps, by family; the size of the images is a multiple."""

SCALED, PENALISED = ("smmd", "swgan"), ("wgan", "mmd")  # losses with a scale, and losses that can have penalties


@dataclass(frozen=True, kw_only=True)
class Arbel2018(Settings):
    """The defaults are those of SN-SMMD on CIFAR-10. None means that the other settings decide."""

    dataset: Literal["cifar10", "celeba", "imagenet", "fashion-mnist", "fake"] = "cifar10"
    """training images; fake generates them"""
    family: Literal["sngan", "dcgan", "dcgan5", "resnet"] = "sngan"
    """networks: sngan (CIFAR-10), dcgan (Appendix D.2), dcgan5 (CelebA), resnet (ImageNet)"""
    width: int = 64  # channels of the largest feature maps
    noise: int = 128  # dimension of the noise, which is uniform between -1 and 1
    loss: Literal["gan", "wgan", "mmd", "sobolev", "smmd", "swgan"] = "smmd"  # loss of both networks
    sigma: float = 1.0  # bandwidth of the Gaussian kernel of mmd and smmd
    scale_weight: float | None = None
    """weight of the squared gradient in the scale of smmd and swgan, 1 / lambda; by default 10"""
    gradient_penalty: float = 0.0  # weight of the gradient penalty, for wgan and mmd; 0 for none
    l2_penalty: float = 0.0  # weight of the L2 penalty on the critic's outputs, for wgan and mmd; 0 for none
    sobolev_rho: float = 2e-8  # weight of the squared constraint of sobolev, and step size of its multiplier
    normalisation: Literal["none", "matrix", "conv"] = "matrix"
    """spectral norm of the critic's layers: none, of the weight matrix (as in the paper), or of the convolution"""
    gamma: Literal["learned", "fixed"] | None = None
    """norm of each normalised layer: a parameter, or 1; by default fixed for gan, and for wgan and mmd
    without a gradient penalty, otherwise learned"""
    critic_steps: int = 5  # updates of the critic for each update of the generator
    lr_discriminator: float = 1e-4  # initial learning rate of the critic
    lr_generator: float = 1e-4  # initial learning rate of the generator
    clip_norm: float = 1.0  # largest gradient norm of each parameter by itself; 0 does not clip
    batch_size: int = 64  # number of real images in one step of one process, and of generated images
    iterations: int = 150_000  # number of updates of the generator
    ema_decay: float = 0.0  # decay of the moving average of the generator, from which samples are drawn; 0 for none
    kid_features: Annotated[str | None, tyro.conf.arg(metavar="inception|PATH")] = None
    """features for KID tests that lower the learning rates, as in evaluate.py; by default, the rates are constant"""
    kid_images: int = 2048  # number of real images in a KID test, and of generated images
    kid_every: int = 2000  # iterations between KID tests
    kid_memory: int = 10  # number of KID tests between the two generators that a KID test compares
    kid_failures: int = 3  # number of KID tests in a row without improvement that lower the learning rates
    lr_factor: float = 0.8  # factor that lowers the learning rates
    lr_least: float = 1e-6  # lower bound of the learning rates
    sample_every: int = 1000  # iterations between sheets of samples
    checkpoint_every: int = 2000  # iterations between checkpoints, of which the newest two are kept
    spectrum_every: int = 10_000  # iterations between logs of the singular values

    FREE: ClassVar = Settings.FREE | {"spectrum_every"}
    FORMATS: ClassVar = {**Settings.FORMATS, "celeba": (160, 3), "imagenet": (64, 3)}

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, "size", "width", "noise", "critic_steps", least=1)
        check(self, "kid_every", "kid_memory", "kid_failures", "spectrum_every", least=1)
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
        if self.kid_failures > self.kid_memory:
            raise ValueError(f"kid_failures: expected at most kid_memory, {self.kid_memory}; got {self.kid_failures}")


def resolved(settings: Arbel2018) -> Arbel2018:
    """Replace None by the values that follow from the other settings, so that the saved settings are complete."""
    # Section 4: gamma is 1 in models without explicit gradient control, and learned in the others.
    free = settings.loss in ("gan", *PENALISED) and not settings.gradient_penalty
    return replace(
        settings,
        scale_weight=(settings.scale_weight or 10.0) if settings.loss in SCALED else None,
        gamma=settings.gamma or ("fixed" if free else "learned"),
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
"""The settings of each method."""

RATES = ("lr_discriminator", "lr_generator")

DATASETS: Mapping[str, Mapping[str, Any]] = {
    "cifar10": {"family": "sngan"},
    "celeba": {"size": 160, "family": "dcgan5", "workers": 8},
    # The paper trains on three GPUs, each with a batch of 64.
    "imagenet": {"size": 64, "family": "resnet", "workers": 8, **dict.fromkeys(RATES, 2e-4)},
    "fashion-mnist": {**REDUCED, "width": 8, "batch_size": 32, "spectrum_every": 500, **dict.fromkeys(RATES, 5e-4)},
    "fake": {**TRIAL, "width": 1, "critic_steps": 2, "spectrum_every": 10},
}
"""The settings of each data set."""

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
