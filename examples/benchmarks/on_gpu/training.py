"""The step of the CIFAR-10 experiment of Wang et al. on a device, and its parts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import spectral_norm_time as norms
import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parents[2]))  # for dcgan

import training_step as on_cpu
from dcgan.batches import Batches, to_images
from dcgan.gan import GAN
from dcgan.precision import autocast

from on_gpu.timing import Candidate
from torch_mmd_losses import MMDLoss

OURS = "`mmd-rep-b`, `conv`"
STEPS = {OURS: on_cpu.STEPS[OURS], "`hinge`, PyTorch's": on_cpu.STEPS["`hinge`, PyTorch's"]}
"""Losses and spectral norms of whole steps."""

SMALL_BATCH = 4


class Precision(NamedTuple):
    """How a step is computed."""

    dtype: str = "float32"
    tensor_float: bool = False
    channels_last: bool = False
    compiled: bool = False


PRECISIONS = {
    "float32": Precision(),
    "float32, TF32": Precision(tensor_float=True),
    "bfloat16": Precision("bfloat16", tensor_float=True, channels_last=True),
}
COMPILED = {
    "bfloat16": PRECISIONS["bfloat16"]._replace(compiled=True),
    "float32, TF32": PRECISIONS["float32, TF32"]._replace(compiled=True),
}


def batch_size(small: bool) -> int:
    """Return how many real, and as many generated, images a step has."""
    return SMALL_BATCH if small else on_cpu.BATCH


def make_gan(loss: str, norm: str, precision: Precision, device: torch.device, small: bool) -> GAN:
    """Return both networks of the experiment on a device."""
    return on_cpu.make_gan(
        loss,
        norm,
        on_cpu.QUICK_WIDTH if small else on_cpu.WIDTH,
        0,
        device=str(device),
        batch_size=batch_size(small),
        precision=precision.dtype,
        channels_last=precision.channels_last,
        compile=precision.compiled,
    )


def images(device: torch.device, small: bool) -> Tensor:
    """Return a batch in [-1, 1]."""
    return torch.rand(batch_size(small), 3, 32, 32).mul(2).sub(1).to(device)


def whole_step(
    precision: Precision, device: torch.device, small: bool, loss: str = "mmd-rep-b", norm: str = "conv"
) -> Callable[[], object]:
    """Return a function that does a whole step, without the data."""
    gan, real = make_gan(loss, norm, precision, device, small), images(device, small)
    return lambda: gan.step(real)


def steps(precision: Precision, device: torch.device, small: bool) -> dict[str, Callable[[], object]]:
    """Return whole steps of ours and of a hinge loss."""
    return {name: whole_step(precision, device, small, *what) for name, what in STEPS.items()}


def parts(precision: Precision, device: torch.device, small: bool) -> dict[str, Candidate]:
    """Return the parts of a step, as in `training_step.py`, each to be done alone."""
    gan = make_gan("mmd-rep-b", "none", precision, device, small)
    both, count = gan.loss, batch_size(small)
    assert isinstance(both, MMDLoss)
    pixels = np.random.default_rng(0).integers(0, 256, (max(count, 1024), 3, 32, 32), np.uint8)
    batches = Batches(pixels, count, 0, pinned=device.type == "cuda")
    real = images(device, small)
    weights_d, weights_g = list(gan.discriminator.parameters()), list(gan.generator.parameters())
    noise = gan.noise(count)
    along_images, fake = torch.randn_like(real), torch.randn_like(real).requires_grad_()

    def scores() -> Tensor:
        with autocast(precision.dtype, device):
            found: Tensor = gan.discriminator(torch.cat([real, fake]).contiguous(memory_format=gan._layout))
        return found

    seen = scores().detach()
    along_scores = torch.randn_like(seen)
    real_scores, fake_scores = (half.clone().requires_grad_() for half in seen.chunk(2))
    for weight in (*weights_d, *weights_g):
        weight.grad = torch.randn_like(weight)

    def data() -> None:
        to_images(batches.next(), device)

    def generator() -> None:
        with autocast(precision.dtype, device):
            drawn = gan.generator(noise)
        torch.autograd.grad(drawn, weights_g, along_images.to(drawn.dtype))

    def discriminator() -> None:
        found = scores()
        torch.autograd.grad(found, weights_d, along_scores, retain_graph=True)
        torch.autograd.grad(found, fake, along_scores)

    def loss() -> None:
        losses = both.both(real=real_scores, fake=fake_scores)
        torch.autograd.grad(losses.discriminator, [real_scores, fake_scores], retain_graph=True)
        torch.autograd.grad(losses.generator, [real_scores, fake_scores])

    def updates() -> None:
        gan.adam_d.step()
        gan.adam_g.step()
        gan._average()

    normalisation = normalised_layers(device, norms.QUICK_LAYERS if small else norms.ALL_LAYERS)
    work = {"data": data, "generator": generator, "discriminator": discriminator, "loss": loss, "updates": updates}
    return {
        **{name: Candidate(do) for name, do in work.items()},
        "normalisation": Candidate(normalisation.step, before=normalisation.change),
    }


def normalised_layers(device: torch.device, count: int) -> norms.Candidate:
    """Return the wrapped layers of the discriminator on a device."""
    made = norms.Candidate("conv", count, 0)
    made.layers = [layer.to(device) for layer in made.layers]
    made.inputs = [x.to(device) for x in made.inputs]
    made.directions = [x.to(device) for x in made.directions]
    return made
