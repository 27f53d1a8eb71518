"""Generators of Wang et al. (2019) for the evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from one_step import networks as one_step
from torch import nn
from training.images import load
from training.sampling import Sampler

from wang2019.networks import make_generator
from wang2019.presets import Wang2019


def generator_of(settings: Wang2019) -> nn.Sequential:
    """Return the generator that the settings describe, with initial weights."""
    shape: dict[str, Any] = {"size": settings.size, "channels": settings.channels}
    if settings.one_step_width:
        return one_step.make_generator(inputs=settings.noise, width=settings.one_step_width, norm="batch", **shape)
    return make_generator(noise=settings.noise, width=settings.width, **shape)


def sampler(configuration: Mapping[str, Any]) -> Sampler:
    """Return a sampler for the settings in a checkpoint; settings that cannot be used raise an error."""
    chosen = Wang2019(out=Path(), **dict(configuration))
    shape = {"size": chosen.size, "channels": chosen.channels}
    return Sampler(
        generator_of(chosen),
        lambda count, generator: torch.randn(count, chosen.noise, generator=generator),
        lambda images: images,
        lambda root, split: load(chosen.dataset, root, split=split, **shape),
    )
