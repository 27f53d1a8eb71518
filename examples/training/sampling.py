"""What has to be known of a trained generator to draw from it and to compare what it draws."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from training.checkpoints import State


class Sampler(NamedTuple):
    """A generator as its paper uses it."""

    generator: nn.Module  # maps noise (n, dimension) to images, with the initial weights
    noise: Callable[[int, torch.Generator], Tensor]  # draws noise of a number of images on the CPU
    centred: Callable[[Tensor], Tensor]  # maps generated images to [-1, 1]
    real: Callable[[Path, str], Dataset[Tensor]]  # returns images of a split below a folder of data sets, of that size


def averaged(state: State) -> State:
    """Return the weights of the moving average in a checkpoint, by the names of the generator's."""
    return {name.removeprefix("module."): value for name, value in state["average"].items() if name != "n_averaged"}
