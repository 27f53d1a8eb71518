"""The options of the loss of drifting models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

Fields = Sequence[tuple[Tensor, Tensor]]
"""The mass `(g, n)` and the pull `(g, n, d)` of real samples, and those of negatives, for one temperature."""


class LossOptions(NamedTuple):
    """The options of :func:`drift_loss`, checked. `smallest_affinity` is the root of `affinity_floor`."""

    temperatures: Sequence[float]
    distance_floor: float
    smallest_affinity: float
    per_group: bool
