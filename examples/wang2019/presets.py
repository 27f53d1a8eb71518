"""The settings of Wang et al.'s experiments.

The paper tried 16 pairs of learning rates; each preset has the pair of the authors' script for its data set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro
from training.settings import REDUCED, TRIAL, Settings, check

from wang2019.losses import MMD, NAMES, SINGLE_SCORE
from wang2019.networks import NOISE, normalised_layers

DataSet = Literal["cifar10", "stl10", "celeba", "lsun", "fashion-mnist", "folder", "fake"]


@dataclass(frozen=True, kw_only=True)
class Wang2019(Settings):
    """The defaults are those of the paper's experiments with CIFAR-10."""

    dataset: DataSet = "cifar10"  # training images; folder reads all images below --data-root, fake generates images
    size: Literal[32, 48, 64] = 32  # height and width of the images in pixels
    width: int = 64  # channels of the largest feature maps
    noise: int = NOISE  # dimension of the noise
    one_step_width: int | None = None
    """replace the generator by that of examples/one_step with batch normalisation and this width"""
    loss: Literal[NAMES] = "mmd-rep-b"  # type: ignore[valid-type]
    """loss of both networks; minimax, wasserstein and smmd (scaled MMD) are not in the paper"""
    lambda_: Annotated[float | None, tyro.conf.arg(name="lambda")] = None
    """lambda of L_D,lambda (Eq. 5), for MMD losses; by default that of the loss, 1 for mmd-rep and mmd-rep-b"""
    scores: int | None = None  # scores per image from the discriminator; by default 16 for MMD losses, otherwise 1
    gradient_penalty: float = 0.0  # weight of the gradient penalty of Appendix D.1, where it is 0.1; 0 for none
    normalisation: Literal["auto", "pico", "conv", "matrix", "none"] = "auto"
    """spectral norm of the discriminator's layers: pico (PICO, as in the paper), matrix (PIM), none,
    or conv (the norm of pico, estimated more closely); auto is none with a gradient penalty or smmd,
    otherwise pico"""
    scale: float | None = None  # constant C, the norm of every normalised layer; by default 1 / 0.55
    total_scale: float | None = None  # C^K for all K layers, in place of --scale; the authors tried 16 to 256
    updates: Literal["simultaneous", "alternating"] = "simultaneous"
    """update both networks from one forward pass of the discriminator, or the discriminator first"""
    lr_discriminator: float = 5e-4  # learning rate of the discriminator
    lr_generator: float = 2e-4  # learning rate of the generator
    batch_size: int = 64  # number of real images in one step of all processes, and of generated images
    across: Literal["global", "blocks"] = "global"
    """with several processes: MMD loss of the joint batch, or mean of the losses of each process's own images"""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"  # precision of forward and backward passes
    channels_last: bool = False  # store images in channels-last layout, which tensor cores prefer
    compile: bool = False  # compile both networks by torch.compile
    cpu_seconds: float | None = None
    """stop the training after this CPU time in seconds, of all cores and processes together"""

    FREE: ClassVar[frozenset[str]] = Settings.FREE | {"cpu_seconds"}

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, "width", "noise", "scores", "one_step_width", least=1)
        check(self, "batch_size", least=2)
        check(self, "gradient_penalty", least=0)
        check(self, "scale", "total_scale", "lr_discriminator", "lr_generator", "cpu_seconds", above=0)
        check(self, "lambda_")
        if self.lambda_ is not None and self.loss not in MMD:
            raise ValueError(f"lambda: expected none for {self.loss!r}, which is not an MMD loss; got {self.lambda_}")
        if self.loss in SINGLE_SCORE and self.scores not in (None, 1):
            raise ValueError(f"scores: expected 1 for {self.loss}, got {self.scores}")
        if self.scale is not None and self.total_scale is not None:
            raise ValueError(f"total_scale: expected none with scale, got {self.total_scale} and {self.scale}")
        # The penalty needs a loss of at most 1: the discriminator would lower a larger one by a larger gradient.
        bounded = self.loss in ("mmd-rep", "mmd-rep-b") and 0 <= (self.repulsion or 0) <= 1
        if self.gradient_penalty and not bounded:
            expected = "mmd-rep or mmd-rep-b, with lambda between 0 and 1"
            raise ValueError(f"gradient_penalty: expected {expected}; got {self.loss} with lambda {self.repulsion}")
        if self.differentiates_twice and self.compile:
            raise ValueError("compile: expected none with a gradient penalty or smmd, which PyTorch cannot compile")

    @property
    def repulsion(self) -> float | None:
        """The value of lambda, which only MMD losses have."""
        return MMD[self.loss][1] if self.lambda_ is None and self.loss in MMD else self.lambda_

    @property
    def differentiates_twice(self) -> bool:
        """Whether the loss contains the discriminator's gradient, which it then bounds without spectral norms."""
        return bool(self.gradient_penalty) or self.loss == "smmd"


def resolved(settings: Wang2019) -> Wang2019:
    """Replace None by the values that follow from the other settings, so that the saved settings are complete."""
    usual: Literal["none", "pico"] = "none" if settings.differentiates_twice else "pico"
    scale = settings.scale or 1 / 0.55
    if settings.total_scale is not None:
        scale = settings.total_scale ** (1 / normalised_layers(settings.size))
    return replace(
        settings,
        lambda_=settings.repulsion,
        scores=settings.scores or (16 if settings.loss in MMD and not settings.gradient_penalty else 1),
        normalisation=usual if settings.normalisation == "auto" else settings.normalisation,
        scale=scale,
        total_scale=None,
    )


def _preset(name: str, dataset: str | None = None, **options: object) -> Wang2019:
    return Wang2019(out=Path("runs") / f"dcgan-{name}", dataset=dataset or name, **options)  # type: ignore[arg-type]


PRESETS: Mapping[str, Wang2019] = {
    "cifar10": _preset("cifar10"),
    "stl10": _preset("stl10", size=48, lr_discriminator=2e-4),
    "celeba": _preset("celeba", size=64, lr_discriminator=1e-4, workers=8),
    "lsun": _preset("lsun", size=64, lr_discriminator=2e-4, lr_generator=1e-4, workers=8),
    "fashion-mnist": _preset("fashion-mnist", width=16, lr_generator=5e-4, **REDUCED),
    "fake": _preset("fake", width=2, **TRIAL),
}
"""The paper's experiments, and two small ones."""
