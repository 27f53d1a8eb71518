"""Generators of Arbel et al. (2018) for the evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from training.sampling import Sampler

from arbel2018 import data
from arbel2018.networks import make_generator
from arbel2018.presets import Arbel2018


def sampler(configuration: Mapping[str, Any]) -> Sampler:
    """Return a sampler for the settings in a checkpoint; settings that cannot be used raise an error."""
    chosen = Arbel2018(out=Path(), **dict(configuration))
    shape = {"size": chosen.size, "channels": chosen.channels}
    return Sampler(
        make_generator(chosen),
        lambda count, generator: torch.rand(count, chosen.noise, generator=generator) * 2 - 1,
        lambda images: images * 2 - 1,
        lambda root, split: data.load(chosen.dataset, root, split=split, margin=0, **shape),
    )
