"""The few words that several modules share."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

Estimator = Literal["unbiased", "u_statistic", "biased"]
"""Which pairs an estimator of MMD^2 averages over."""

ESTIMATORS: tuple[str, ...] = get_args(Estimator)

Group = Literal["real", "cross", "fake"]
"""Which samples a pair is made of."""

GROUPS: tuple[Group, ...] = get_args(Group)

Bounds = Literal["none", "attractive", "repulsive"]
"""Whether a bounded kernel applies its bounds: not at all (the generator), or those of Eq. 6 or Eq. 7 of Wang et al."""


class Weights(NamedTuple):
    """The factors of the three mean kernel values in a loss; they add up to zero in every loss here."""

    real: float
    cross: float
    fake: float


class Objective(NamedTuple):
    """A loss: the weights of the three mean kernel values, and the bounds of bounded kernels in it."""

    weights: Weights
    bounds: Bounds
