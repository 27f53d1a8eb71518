"""The step of the CIFAR-10 experiment of Wang et al. on a device, and its parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import spectral_norm_time as norms
import torch
import training_step as on_cpu
from wang_step import WangStep

from on_gpu.timing import Candidate

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


def make_step(loss: str, norm: str, precision: Precision, device: torch.device, small: bool) -> WangStep:
    """Return the step of the experiment on a device."""
    return on_cpu.make_step(
        loss,
        norm,
        on_cpu.QUICK_WIDTH if small else on_cpu.WIDTH,
        0,
        device=device,
        dtype=getattr(torch, precision.dtype),
        batch_size=batch_size(small),
        channels_last=precision.channels_last,
        compile=precision.compiled,
    )


def whole_step(
    precision: Precision, device: torch.device, small: bool, loss: str = "mmd-rep-b", norm: str = "conv"
) -> Callable[[], object]:
    """Return a function that does a whole step, without the data."""
    step = make_step(loss, norm, precision, device, small)
    real = step.images()
    return lambda: step(real)


def steps(precision: Precision, device: torch.device, small: bool) -> dict[str, Callable[[], object]]:
    """Return whole steps of ours and of a hinge loss."""
    return {name: whole_step(precision, device, small, *what) for name, what in STEPS.items()}


def parts(precision: Precision, device: torch.device, small: bool) -> dict[str, Candidate]:
    """Return the parts of a step, as in `training_step.py`, each to be run alone."""
    work = make_step("mmd-rep-b", "none", precision, device, small).parts(max(batch_size(small), 1024))
    normalisation = normalised_layers(device, norms.QUICK_LAYERS if small else norms.ALL_LAYERS)
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
