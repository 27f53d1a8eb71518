"""Losses as weighted sums of three mean kernel values, and the pairs that these are means over."""

from __future__ import annotations

from typing import NamedTuple

from torch_mmd_losses.types import Bounds, Estimator, Group


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


class GroupOfPairs(NamedTuple):
    """The pairs that an estimator averages over, of two real, of a real and a fake, or of two fake samples.

    Attributes:
        group: the name of the group.
        a: 0 if the first sample of a pair is real, 1 if it is fake.
        b: the same for the second.
        distinct: whether pairs of equal index are left out.
        pairs: number of pairs.
    """

    group: Group
    a: int
    b: int
    distinct: bool
    pairs: int


def groups_of_pairs(m: int, n: int, estimator: Estimator) -> tuple[GroupOfPairs, GroupOfPairs, GroupOfPairs]:
    """Return the real, the cross and the fake pairs of `m` real and `n` fake samples."""
    within, aligned = estimator != "biased", estimator == "u_statistic"
    return (
        GroupOfPairs("real", 0, 0, within, m * m - m if within else m * m),
        GroupOfPairs("cross", 0, 1, aligned, m * n - m if aligned else m * n),
        GroupOfPairs("fake", 1, 1, within, n * n - n if within else n * n),
    )
