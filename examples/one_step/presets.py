"""The settings of trainings without a discriminator, and their presets."""

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

    data_root: Path = Path("data")
    """folder of the data sets; of --dataset folder, the folder of the images"""
    dataset: Literal["cifar10", "fashion-mnist", "folder", "fake"] = "cifar10"
    """real images; folder reads the images in --data-root and in its subfolders"""
    size: int = 32
    """height and width of the images in pixels, 4 times a power of 2"""
    channels: Literal[1, 3] = 3
    """3 for colour images, 1 for grey images"""
    held_out: int | None = None
    """real images that are not trained on, for ratio_to_real and --balance floors; by default a tenth, at most 5000"""
    learnt: int | None = None
    """training images, chosen at random; by default all that are not held out"""
    encoder: Annotated[
        tuple[str, ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(
            help="frozen network whose features are compared; repeat the option for several networks: random:SEED, "
            "pixels:SIZE, classifier:PATH, classifier-maps:PATH, jit:PATH, export:PATH, dinov2:FOLDER:NAME=PATH, "
            "clip:NAME=PATH, inception=PATH, or MODULE:FUNCTION[=PATH]; by default random:0, and also pixels:16 for "
            "fashion-mnist"
        ),
    ] = ()
    standardise: bool = False
    """shift and scale each feature to mean 0 and standard deviation 1 over the training images"""
    loss: Literal["mmd", "drift"] = "mmd"
    """MMD^2, or the loss of drifting models, which needs --reference resampled"""
    reference: Literal["exact", "nystrom", "fourier", "resampled"] = "exact"
    """real features in the loss: all, landmarks, random Fourier features, or a random batch in each step"""
    landmarks: int = 1024
    """number of landmarks for nystrom"""
    centres: bool = True
    """use the centres of k-means as landmarks, not random images"""
    frequencies: int = 4096
    """number of random frequencies for fourier"""
    real_batch: int | None = None
    """real images per step for resampled; by default as many as generated images"""
    on_host: bool = False
    """keep the features of the training images in host memory, not on the GPU"""
    self_rows: int = 10_000
    """training images that estimate the self term of MMD^2, which has no gradient but is part of logged values"""
    estimator: Literal["biased", "unbiased"] = "biased"
    """with or without the pairs of a generated image and itself"""
    kernel: Literal["gaussian", "laplace", "matern", "energy", "imq"] = "gaussian"
    """kernel of features; matern has order 3/2, imq is the inverse multiquadric"""
    factor: tuple[float, ...] = (1.0,)
    """width of the kernel in units of the median distance; several widths give a sum of kernels"""
    balance: Annotated[
        Literal["auto", "none", "relative", "floors"],
        tyro.conf.arg(
            help="sum over encoders: none adds the losses, relative divides each loss by its own value, and floors "
            "also weights it by its excess over the value of held-out images; auto is relative for several encoders "
            "with the biased MMD^2, else none"
        ),
    ] = "auto"
    conditional: bool = False
    """generate images of given classes; those of a folder are its subfolders"""
    classes: tyro.conf.Fixed[int] = 0
    """number of classes in the data, 0 without --conditional"""
    class_width: float = 0.3
    """width of the Gaussian kernel of classes, which are one-hot vectors"""
    guidance: float = 1.0
    """strength of the guidance away from images of all classes, with --conditional and --reference exact or nystrom;
    1 is no guidance, and --reference resampled and --loss drift have none"""
    noise: int = 64
    """dimension of the noise"""
    width: int = 16
    """channels of the generator's largest feature maps, which are half as high and wide as the images"""
    norm: Literal["layer", "batch"] = "layer"
    """normalise over each image, or over the batch, which needs one process and --micro-batch >= --batch-size"""
    batch_size: int = 1024
    """generated images per step, in all processes together"""
    micro_batch: int = 256
    """images whose activations a process keeps in memory at a time"""
    lr: float = 1e-3
    """learning rate of Adam"""
    betas: tuple[float, float] = (0.9, 0.95)
    """decay rates of Adam's two averages"""
    clip: float | None = None
    """largest norm of the gradient; by default the gradient is not clipped"""
    cpu_seconds: float | None = None
    """stop when the steps have taken so many CPU seconds, summed over all cores and processes"""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """precision of the networks; kernels are computed in float32"""

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
                "estimator: expected biased with --loss drift, which never pairs an image with itself, got unbiased"
            )
        if self.kernel == "energy" and (self.reference == "nystrom" or self.conditional):
            other = "--conditional" if self.conditional else "--reference nystrom"
            raise ValueError(f"kernel: expected a positive definite kernel with {other}, got energy")
        if self.reference == "fourier" and self.kernel != "gaussian":
            raise ValueError(f"kernel: expected gaussian with --reference fourier, got {self.kernel}")
        if self.reference == "fourier" and self.conditional:
            raise ValueError("reference: expected exact, nystrom or resampled with --conditional, got fourier")
        if self.balance not in ("auto", "none") and (self.loss == "drift" or self.estimator == "unbiased"):
            other = "--loss drift" if self.loss == "drift" else "--estimator unbiased"
            raise ValueError(f"balance: expected auto or none with {other}, got {self.balance}")
        if self.norm == "batch" and self.micro_batch < self.batch_size:
            raise ValueError(
                f"micro_batch: expected at least the --batch-size of {self.batch_size} with --norm batch, "
                f"got {self.micro_batch}"
            )
        if len(set(self.encoder)) < len(self.encoder):
            raise ValueError(f"encoder: expected different ones, got {', '.join(self.encoder)}")
        if self.guidance != 1 and self.balance == "floors":
            # The target is not the data, so the value of real images is no floor.
            raise ValueError(f"balance: expected auto, none or relative with --guidance {self.guidance:g}, got floors")
        if self.guidance != 1 and not (self.conditional and self.reference in ("exact", "nystrom")):
            raise ValueError(
                "guidance: expected 1 unless --conditional is used with --reference exact or nystrom, "
                f"got {self.guidance:g} with conditional {self.conditional} and reference {self.reference}"
            )


ENCODERS: Mapping[str, tuple[str, ...]] = {"fashion-mnist": ("random:0", "pixels:16")}
"""Default encoders of data sets for which they are not `random:0` alone."""


def resolved(settings: OneStep) -> OneStep:
    """Replace the defaults of `encoder` and `balance` by explicit values, so that the saved settings are complete."""
    encoder = settings.encoder or ENCODERS.get(settings.dataset, ("random:0",))
    several = len(encoder) > 1 and settings.loss == "mmd" and settings.estimator == "biased"
    usual: Literal["none", "relative"] = "relative" if several else "none"
    return replace(settings, encoder=encoder, balance=usual if settings.balance == "auto" else settings.balance)


def _preset(name: str, **options: object) -> OneStep:
    return OneStep(out=Path("runs") / f"one-step-{name}", dataset=name, **options)  # type: ignore[arg-type]


PRESETS: Mapping[str, OneStep] = {
    # Draws recognisable clothes after minutes on two CPU cores: cheap steps, batch normalisation, classes, and a sum of
    # narrow and wide kernels.
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
    # Random images, to run all parts of a training in seconds.
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
"""The presets, one for each data set."""
