"""The drifts of the loss of drifting models from logarithms of affinities, for all temperatures and devices."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from torch_mmd_losses.fields.affinities import Affinity
from torch_mmd_losses.fields.column_distances import all_distances
from torch_mmd_losses.fields.field_sums import Displacements, LogSums, joined
from torch_mmd_losses.fields.log_kernels import Log, LogKernel
from torch_mmd_losses.fields.loss_options import Fields, LossCall, LossOptions
from torch_mmd_losses.fields.sample_sets import SampleSet
from torch_mmd_losses.fields.visits import Visits
from torch_mmd_losses.hand_written_gradients import reverse_mode_only
from torch_mmd_losses.pairs.pair_functions import Tile
from torch_mmd_losses.pairs.tile_distances import NearPairs, TileDistances
from torch_mmd_losses.precision import total_dtype


class LossByLogarithms(LossCall):
    """A call of the loss by logarithms."""

    def __init__(self, x: Tensor, sets: Sequence[SampleSet], options: LossOptions) -> None:
        super().__init__(x, sets, options)
        self.visits = [Visits(x, each.samples, self, each.indices) for each in sets]
        self.traced = not reverse_mode_only(x, *[tensor for each in sets for tensor in each.tensors()])

    def near(self, like: Tensor, error: float) -> float:
        """Return infinity: logarithms are taken in float64."""
        return math.inf

    def sums_of_distances(self) -> Tensor:
        """Return the weighted sum over all pairs of each group, `(g,)`."""
        return torch.stack([self._sum_of_distances(*each) for each in zip(self.sets, self.visits, strict=True)]).sum(0)

    def fields(self, scale: Tensor) -> list[Fields]:
        """Return the fields of each temperature, in units of the scale `(g, 1, 1)` or `(1, 1, 1)`."""
        if self.traced:
            return list(self._traced_fields(scale))
        sums = [self._log_sums(*each, scale) for each in zip(self.sets, self.visits, strict=True)]
        rows = [torch.logaddexp(a[0], b[0]) / 2 for a, b in zip(*sums, strict=True)]
        fields = [
            self._displacements(each, visits, scale, rows, [columns / 2 for _, columns in own])
            for each, visits, own in zip(self.sets, self.visits, sums, strict=True)
        ]
        return list(map(list, zip(*fields, strict=True)))

    def _sum_of_distances(self, each: SampleSet, visits: Visits) -> Tensor:
        if self.traced:
            return (self._distances(each) * each.weights.unsqueeze(-2)).sum((-2, -1))
        parts = visits.visit(lambda _, groups: SumsOfDistances(each.weights[groups], self.square))
        return torch.cat([part.total for part in parts])

    def _log_sums(self, each: SampleSet, visits: Visits, scale: Tensor) -> list[tuple[Tensor, Tensor]]:
        def start(distances: TileDistances, groups: slice) -> LogSums:
            ones = torch.zeros_like(distances.b[..., 0])
            logs = [LogKernel([log], ()).in_tiles(None) for log in self._logs(scale, groups)]
            return LogSums(distances, logs, ones, each.indices, over_points=True)

        return joined([part.totals for part in visits.visit(start)])

    def _displacements(
        self, each: SampleSet, visits: Visits, scale: Tensor, rows: Sequence[Tensor], columns: Sequence[Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        smallest = self.options.smallest_affinity

        def start(distances: TileDistances, groups: slice) -> Displacements:
            shifts = zip(self._logs(scale, groups), rows, columns, strict=True)
            affinities = [_Floored(LogKernel([log], ()), a, b, smallest) for log, a, b in shifts]
            return Displacements(
                distances, each.weights[groups], affinities, each.indices, self.x.dtype, left_out=smallest
            )

        return joined([part.totals for part in visits.visit(start)])

    def _logs(self, scale: Tensor, groups: slice) -> list[Log]:
        """Return the logarithms of the kernels of some groups."""
        own = scale[groups] if self.options.per_group else scale
        return [partial(_log, square=self.square, scale=own * tau) for tau in self.options.temperatures]

    def _distances(self, each: SampleSet) -> Tensor:
        return all_distances(self.x, each.samples, each.indices).clamp_min(self.square).sqrt()

    def _traced_fields(self, scale: Tensor) -> Iterator[Fields]:
        for tau in self.options.temperatures:
            logs = [each.indices.without(self._distances(each) / (scale * -tau), -math.inf) for each in self.sets]
            rows = torch.cat(logs, -1).logsumexp(-1, keepdim=True)
            found = []
            for each, log in zip(self.sets, logs, strict=True):
                affinity = ((log - rows / 2) - log.logsumexp(-2, keepdim=True) / 2).exp()
                affinity = affinity.clamp_min(self.options.smallest_affinity) * each.weights.unsqueeze(-2)
                mass = affinity.sum(-1)
                found.append((mass, affinity @ each.samples - mass.unsqueeze(-1) * self.x))
            yield found


def _log(sq_dist: Tensor, square: float, scale: Tensor) -> Tensor:
    return sq_dist.clamp_min(square).sqrt_().div_(-scale)


class SumsOfDistances:
    """Weighted sums of distances of groups.

    Args:
        weights: weights of the samples, `(g, n)`.
        square: square of the smallest distance.
    """

    def __init__(self, weights: Tensor, square: float) -> None:
        self.weights, self.square = weights.unsqueeze(-1), square
        self.total = torch.zeros_like(weights[:, 0], dtype=total_dtype(weights.device))

    def visit(self, sq_dist: Tensor, tile: Tile, meets: bool, near: NearPairs | None) -> None:
        """Add a tile."""
        distances = sq_dist.clamp_min(self.square).sqrt_()
        weights = self.weights[:, tile.columns].to(distances.dtype)
        self.total.add_((distances @ weights).sum((-2, -1), dtype=self.total.dtype))


class _Floored(Affinity):
    """An affinity with a lower bound."""

    def __init__(self, log: LogKernel, of_points: Tensor, of_samples: Tensor, smallest: float) -> None:
        super().__init__(log, of_points, of_samples)
        self.smallest = smallest

    def values(self, sq_dist: Tensor, tile: Tile, dtype: torch.dtype) -> Tensor:
        """Return the affinities in a tile."""
        return super().values(sq_dist, tile, dtype).clamp_min_(self.smallest)
