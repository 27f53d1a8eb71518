"""Samples from a trained one-step generator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from training.images import load
from training.sampling import Sampler

from one_step.networks import make_generator
from one_step.objectives import joined, one_hot
from one_step.presets import OneStep


def sampler(configuration: Mapping[str, Any]) -> Sampler:
    """Return the sampler of a generator with the settings in its checkpoint.

    All classes have the same probability.

    Raises:
        TypeError: if a setting is unknown.
        ValueError: if one cannot be used.
    """
    chosen = OneStep(out=Path(), **dict(configuration))
    shape = {"size": chosen.size, "channels": chosen.channels}

    def noise(count: int, generator: torch.Generator) -> Tensor:
        drawn = torch.randn(count, chosen.noise, generator=generator)
        if not chosen.classes:
            return drawn
        classes = torch.randint(chosen.classes, (count,), generator=generator)
        return joined(drawn, one_hot(classes, chosen.classes))

    return Sampler(
        generator_of(chosen),
        noise,
        lambda images: images,
        lambda root, split: load(chosen.dataset, root, split=split, **shape),
    )


def generator_of(settings: OneStep) -> nn.Sequential:
    """Return the generator of the settings, with initial weights."""
    inputs, shape = settings.noise + settings.classes, {"channels": settings.channels, "width": settings.width}
    return make_generator(settings.size, inputs=inputs, norm=settings.norm, **shape)
