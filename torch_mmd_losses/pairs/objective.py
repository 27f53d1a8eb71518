"""Losses as weighted sums of three mean kernel values."""

from __future__ import annotations

from typing import NamedTuple

from torch_mmd_losses.types import Bounds


class Weights(NamedTuple):
    """The weights of the mean kernel values of real, cross and fake pairs in a loss, where they add up to zero."""

    real: float
    cross: float
    fake: float


class Objective(NamedTuple):
    """A loss: the weights of the three mean kernel values, and the bounds that bounded kernels apply."""

    weights: Weights
    bounds: Bounds


MMD2 = Weights(real=1.0, cross=-2.0, fake=1.0)
"""`E k(x, x') - 2 E k(x, y) + E k(y, y')`, Eq. 1 and 2 of Wang et al."""

GENERATOR = Objective(MMD2, "none")
"""The generator's loss: MMD^2 with the kernel without its bounds."""
