"""The options of the loss of drifting models, and quantities that its evaluations share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from torch_mmd_losses.fields.sample_sets import SampleSet
from torch_mmd_losses.kernels.contract import Conditioning

Fields = Sequence[tuple[Tensor, Tensor]]
"""The mass `(g, n)` and the pull `(g, n, d)` of real samples, and those of negatives, for one temperature."""


class LossOptions(NamedTuple):
    """The options of :func:`drift_loss`, checked. `smallest_affinity` is the root of `affinity_floor`."""

    temperatures: Sequence[float]
    distance_floor: float
    smallest_affinity: float
    per_group: bool


class LossCall:
    """A call of the loss, without a graph, which takes the distances of its pairs for Laplace kernels.

    Args:
        x: fake samples `(g, n, d)`.
        sets: real samples and negatives.
        options: the options.
    """

    factor: float | None = None

    def __init__(self, x: Tensor, sets: Sequence[SampleSet], options: LossOptions) -> None:
        self.x, self.sets, self.options = x, sets, options
        self.square = options.distance_floor**2

    def conditioning(self, like: Tensor) -> Conditioning:
        """Return the conditioning of Laplace kernels."""
        return Conditioning(math.inf, 1.0)
