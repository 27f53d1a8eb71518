"""The interface through which the evaluation draws samples from a trained generator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from training.checkpoints import State


class Sampler(NamedTuple):
    """A generator with the noise and the range of its paper, and the real images to compare with."""

    generator: nn.Module  # maps noise (n, dimension) to images; has its initial weights
    noise: Callable[[int, torch.Generator], Tensor]  # draws noise for a number of images, on the CPU
    centred: Callable[[Tensor], Tensor]  # maps generated images to [-1, 1]
    real: Callable[[Path, str], Dataset[Tensor]]  # reads real images, given the folder of the data sets and a split


def averaged(state: State) -> State:
    """Return the moving average of the generator in a checkpoint, as a state dict of the generator."""
    return {name.removeprefix("module."): value for name, value in state["average"].items() if name != "n_averaged"}
