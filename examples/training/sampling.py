"""What has to be known of a trained generator to draw from it and to compare what it draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from training.checkpoints import State


@dataclass(frozen=True)
class Sampler:
    """A generator as its paper uses it."""

    generator: nn.Module
    """Maps noise `(n, dimension)` to images, with the initial weights."""
    noise: Callable[[int, torch.Generator], Tensor]
    """Draws noise of a number of images on the CPU."""
    centred: Callable[[Tensor], Tensor]
    """Maps what the generator puts out to [-1, 1]."""
    real: Callable[[Path, str], Dataset[Tensor]]
    """Returns the images of a split below a folder of data sets, of the same size."""


def averaged(state: State) -> State:
    """Return the weights of the moving average in a checkpoint, by the names of the generator's."""
    return {name.removeprefix("module."): value for name, value in state["average"].items() if name != "n_averaged"}
