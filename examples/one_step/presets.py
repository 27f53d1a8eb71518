"""The settings of trainings without a discriminator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro
from training.settings import Settings, check

from one_step.networks import doublings_of


@dataclass(frozen=True, kw_only=True)
class OneStep(Settings):
    """The defaults suit colour images of 32 pixels."""

    dataset: Literal["cifar10", "fashion-mnist", "folder", "fake"] = "cifar10"
    """images to learn from; a folder is --data-root itself"""
    size: int = 32
    """height and width of the images, 4 times a power of 2"""
    channels: Literal[1, 3] = 3
    """3 for colours, 1 for grey"""
    held_out: int | None = None
    """images that are kept from the training, for the floors and ratios; by default a tenth, at most 5000"""
    learnt: int | None = None
    """images that are learnt from, at random; by default all that are not held out"""
    encoder: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """frozen network, to be repeated for several: random:SEED, pixels:SIZE, classifier:PATH, classifier-maps:PATH,
    jit:PATH, export:PATH, dinov2:FOLDER:NAME=PATH, clip:NAME=PATH, inception=PATH, or MODULE:FUNCTION[=PATH]; by
    default random:0, and for fashion-mnist pixels:16 beside it"""
    standardise: bool = False
    """divide each feature by its standard deviation over the data"""
    loss: Literal["mmd", "drift"] = "mmd"
    """MMD^2, or the loss of drifting models, which takes --reference resampled"""
    reference: Literal["exact", "nystrom", "fourier", "resampled"] = "exact"
    """all images, landmarks, random frequencies, or other real images in each step"""
    landmarks: int = 1024
    """landmarks of nystrom"""
    centres: bool = True
    """landmarks are centres of clusters, not random images"""
    frequencies: int = 4096
    """frequencies of fourier"""
    real_batch: int | None = None
    """real images in a step of resampled; by default as many as generated ones"""
    on_host: bool = False
    """keep the features of the data in the memory of the host, not of the GPU"""
    self_rows: int = 10_000
    """images from which the part of MMD^2 is estimated that the generator has no influence on"""
    estimator: Literal["biased", "unbiased"] = "biased"
    """with or without the pairs of an image and itself"""
    kernel: Literal["gaussian", "laplace", "matern", "energy", "imq"] = "gaussian"
    """of the distance of features; matern is that of order 3/2, imq the inverse multiquadric"""
    factor: tuple[float, ...] = (1.0,)
    """width of the kernel in units of the median distance; several make a sum of kernels"""
    balance: Literal["auto", "none", "relative", "floors"] = "auto"
    """how encoders are added: plainly, each divided by its own value, or also weighted by how far it is above the value
    of held-out images; auto is relative if there are several"""
    conditional: bool = False
    """generate images of given classes"""
    classes: tyro.conf.Fixed[int] = 0
    """number of classes that were found, 0 without --conditional"""
    class_width: float = 0.3
    """width of the Gaussian kernel of classes, which are one-hot vectors"""
    guidance: float = 1.0
    """strength by which classes are moved away from all images, for conditional; 1 is none"""
    noise: int = 64
    """dimension of the noise"""
    width: int = 16
    """channels of the generator's largest feature maps, which are half as high and wide as the images"""
    norm: Literal["layer", "batch"] = "layer"
    """what the generator's feature maps are normalised over: each image alone, or the images of the batch, which takes
    one process and --micro-batch of at least --batch-size"""
    batch_size: int = 1024
    """generated images in one step, of all processes together"""
    micro_batch: int = 256
    """images of which a process keeps the activations at a time"""
    lr: float = 1e-3
    """learning rate of Adam"""
    betas: tuple[float, float] = (0.9, 0.95)
    """decays of Adam's averages; by default those of Representation Distribution Matching"""
    clip: float | None = None
    """largest norm of the gradient"""
    cpu_seconds: float | None = None
    """stop when the steps have taken so many seconds of all CPU cores and processes together"""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """of forwards and backwards; kernels are computed in float32"""

    FORMATS: ClassVar = {"cifar10": (32, 3), "fashion-mnist": (32, 1)}
    FREE: ClassVar[frozenset[str]] = Settings.FREE | {"cpu_seconds", "micro_batch", "on_host"}

    def __post_init__(self) -> None:
        super().__post_init__()
        doublings_of(self.size)
        check(self, "noise", "width", "micro_batch", "landmarks", "frequencies", least=1)
        check(self, "batch_size", "real_batch", "held_out", "learnt", "self_rows", least=2)
        check(self, "lr", "clip", "cpu_seconds", "class_width", above=0)
        check(self, "guidance", least=1)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas: expected two numbers >= 0 and < 1, got {self.betas}")
        if not self.factor or min(self.factor) <= 0:
            raise ValueError(f"factor: expected numbers > 0, got {self.factor}")
        if self.loss == "drift" and self.reference != "resampled":
            raise ValueError(f"reference: expected resampled with --loss drift, got {self.reference}")
        if self.loss == "drift" and self.estimator == "unbiased":
            raise ValueError(
                "estimator: expected biased with --loss drift, which leaves out an image and itself anyway"
            )
        if self.kernel == "energy" and (self.reference == "nystrom" or self.conditional):
            other = "--conditional" if self.conditional else "--reference nystrom"
            raise ValueError(f"kernel: expected a positive definite one with {other}, got energy")
        if self.reference == "fourier" and (self.kernel != "gaussian" or self.conditional):
            got = f"{self.kernel} with --conditional" if self.conditional else self.kernel
            raise ValueError(f"reference: expected the gaussian kernel without classes with fourier, got {got}")
        if self.estimator == "unbiased" and self.balance not in ("auto", "none"):
            raise ValueError(f"balance: expected none with --estimator unbiased, got {self.balance}")
        if self.loss == "drift" and self.balance not in ("auto", "none"):
            raise ValueError(f"balance: expected none with --loss drift, got {self.balance}")
        if self.guidance != 1 and not (self.conditional and self.reference in ("exact", "nystrom")):
            raise ValueError(
                f"guidance: expected --conditional and --reference exact or nystrom, got {self.guidance:g} with "
                f"conditional {self.conditional} and {self.reference}"
            )


ENCODERS: Mapping[str, tuple[str, ...]] = {"fashion-mnist": ("random:0", "pixels:16")}
"""What None stands for, where it is not the random network alone."""


def resolved(settings: OneStep) -> OneStep:
    """Put in what None stands for, so that a run is saved with all that decides it."""
    encoder = settings.encoder or ENCODERS.get(settings.dataset, ("random:0",))
    several = len(encoder) > 1 and settings.loss == "mmd" and settings.estimator == "biased"
    usual: Literal["none", "relative"] = "relative" if several else "none"
    return replace(settings, encoder=encoder, balance=usual if settings.balance == "auto" else settings.balance)


def _preset(name: str, **options: object) -> OneStep:
    return OneStep(out=Path("runs") / f"one-step-{name}", dataset=name, **options)  # type: ignore[arg-type]


PRESETS: Mapping[str, OneStep] = {
    # What makes clothes in minutes on two CPU cores: cheap steps, batch normalisation, classes, and kernels of widths
    # that reach far and near.
    "fashion-mnist": _preset(
        "fashion-mnist",
        channels=1,
        width=16,
        noise=32,
        norm="batch",
        conditional=True,
        class_width=1.0,
        factor=(0.25, 0.5, 1.0, 2.0),
        reference="resampled",
        real_batch=500,
        batch_size=250,
        held_out=1000,
        self_rows=4000,
        lr=4e-3,
        betas=(0.5, 0.99),
        iterations=1250,
        ema_decay=0.99,
        log_every=100,
        sample_every=250,
        checkpoint_every=250,
    ),
    "cifar10": _preset("cifar10", width=64, batch_size=4096),
    "folder": _preset("folder", size=64, width=32, batch_size=2048),
    # Learns nothing, but runs through everything in seconds.
    "fake": _preset(
        "fake",
        width=2,
        batch_size=16,
        micro_batch=8,
        iterations=10,
        log_every=2,
        sample_every=5,
        checkpoint_every=5,
    ),
}
"""One for each data set."""
