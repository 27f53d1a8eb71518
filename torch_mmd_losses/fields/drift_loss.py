"""The loss of drifting models, with its scales and floors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from torch_mmd_losses import checks, usage_warnings
from torch_mmd_losses.distances import widened
from torch_mmd_losses.fields import arguments
from torch_mmd_losses.fields.affinities import Affinity, all_distances
from torch_mmd_losses.fields.field_sums import Displacements, LogSums, joined
from torch_mmd_losses.fields.log_kernels import Log, LogKernel
from torch_mmd_losses.fields.sample_sets import SampleSet, sets_of_samples
from torch_mmd_losses.fields.visits import Visits
from torch_mmd_losses.hand_written_gradients import reverse_mode_only
from torch_mmd_losses.kernels.contract import Conditioning
from torch_mmd_losses.pairs.pair_functions import Tile
from torch_mmd_losses.pairs.tile_distances import NearPairs, TileDistances
from torch_mmd_losses.precision import full_precision, total_dtype

SMALLEST_SCALE = 1e-3
"""Smallest mean distance, and smallest unit of the samples."""

SMALLEST_MEAN_SQUARE = 1e-8
"""Smallest mean square of a drift that is normalised."""


def drift_loss(
    fake: Tensor,
    real: Tensor,
    *,
    negatives: Tensor | None = None,
    temperatures: Sequence[float] = (0.02, 0.05, 0.2),
    real_weights: Tensor | None = None,
    negative_weights: Tensor | None = None,
    exclude_self: bool | None = None,
    per_group: bool = False,
    distance_floor: float = 1e-4,
    affinity_floor: float = 1e-6,
) -> Tensor:
    r"""Return the loss of drifting models, whose gradient moves fake samples along a sum of normalised drifts.

    .. math:: L = \frac{1}{n d} \sum_i \Bigl\lVert \frac{x_i}{s} - \mathrm{sg}\Bigl(\frac{x_i}{s}
        + \sum_\tau \frac{V_\tau(x_i)}{\sqrt{\mathrm{mean}\, V_\tau^2}}\Bigr) \Bigr\rVert^2

    for the drifts :math:`V_\tau` of :func:`drift` with `normalise="rows_and_columns"` and the kernel
    :math:`\exp(-r / (\tau \bar{r}))` of the distance :math:`r`. :math:`\bar{r}` is the mean distance of fake samples
    from all real samples and negatives, weighted by their weights, and :math:`s = \bar{r} / \sqrt{d}`. `sg` stops the
    gradient: only the first :math:`x_i` has one.

    **The loss is no measure of progress.** Each drift is divided by its own size, so with one temperature the mean loss
    of the groups is 1 whatever the samples are, and with several it is at most their number squared. To see progress,
    log :func:`mmd2`, or the mean square of :func:`drift`, with a kernel that stays the same.

    The mean distance and the mean squares are means over all groups of the call, as in the paper, where groups are
    classes and locations of one feature map. So groups have an influence on one another, unless `per_group` is true.

    All constants are those of the authors' code: :math:`\bar{r}` and :math:`s` are at least 1e-3, mean squares at least
    1e-8, and see `distance_floor` and `affinity_floor`. The code leaves out the pair of a sample and itself by adding
    100 to its relative distance. Here it is left out exactly, which is the same for temperatures up to 1. As in the
    code, and unlike in :func:`drift`, the sums that normalise affinities have no weights.

    Memory grows with the numbers of samples, not with the number of pairs, except under `torch.compile` and in
    transforms of `torch.func`. Distances and drifts are computed in float64 where that is fast.

    Args:
        fake: samples `(*G, n, d)` in any floating-point dtype, with or without dimensions of groups `*G`. To the
            authors' code, these are `gen` of shape `(B, C_g, S)`.
        real: samples `(*G, m, d)`, of the same groups, dimension, dtype and device (`fixed_pos`).
        negatives: samples `(*G, l, d)`. None stands for the fake samples. For the unconditional samples of guidance
            (`fixed_neg`), pass `torch.cat([fake, unconditional], -2)` with `exclude_self=True`, and weights of
            `(alpha - 1) * (n - 1) / number_of_unconditional` for the strength `alpha`.
        temperatures: the temperatures :math:`\tau`, relative to the mean distance.
        real_weights: weights `(*G, m)`, zero or above. None stands for ones.
        negative_weights: weights `(*G, l)` of the negatives, likewise.
        exclude_self: leave out the pairs of a fake sample and the negative with its index. None stands for true if
            there are no `negatives`, and else for false.
        per_group: take the means over each group alone.
        distance_floor: smallest distance, in the units of the samples.
        affinity_floor: smallest product of the softmax over rows and the one over columns. The floor gives all pairs,
            however far apart, at least the affinity of its root, 1e-3.

    Returns:
        One loss `(*G,)` for each group, float64 for float64 samples and float32 for all others. Differentiable once,
        with respect to `fake` alone.

    Warns:
        UsageWarning: if `negatives` are given without `exclude_self`: they take the place of the fake samples, so
            nothing keeps those apart.

    Raises:
        TypeError: if samples or weights are not tensors, or an option is of the wrong type.
        ValueError: if samples are empty or not floating-point, or differ in groups, dimension, dtype or device; if
            weights have another shape or are below zero; if there are fewer than two fake samples without negatives; if
            temperatures are not positive, or floors are below zero.

    Example:
        >>> fake, real = torch.randn(4, 16, 8, requires_grad=True), torch.randn(4, 32, 8)
        >>> loss = drift_loss(fake, real)  # of each group
        >>> loss.shape
        torch.Size([4])
        >>> loss.mean().backward()

    References:
        Deng et al. (2026), Algorithm 2, Sections A.6 and A.7, and the function `drift_loss` of their code.
    """
    if negatives is not None and exclude_self is None:
        usage_warnings.warn(
            "negatives alone",
            "drift_loss: expected negatives that contain the fake samples, as in the authors' code, got negatives that "
            "take their place, so that nothing keeps fake samples apart. Pass negatives=torch.cat([fake, negatives], "
            "-2) with exclude_self=True, or exclude_self=False if you mean it",
        )
    taus = checks.hyperparameters("temperatures", temperatures)
    floors = arguments.floor("distance_floor", distance_floor), arguments.floor("affinity_floor", affinity_floor)
    x, sets, groups = sets_of_samples(fake, real, negatives, real_weights, negative_weights, exclude_self, signed=False)
    alone = checks.flag("per_group", per_group)
    with torch.no_grad(), full_precision(x.device):
        wide, _ = widened(x.detach(), x.detach())
        call = _Call(wide, [each.widened(x, wide) for each in sets], taus, *floors, alone)
        movement, unit = call.normalised_drift()
    residual = (x - x.detach()) / unit.to(x.dtype) - movement.to(x.dtype)
    return residual.square().mean((-2, -1)).reshape(groups)


class _Call:
    """A call without a graph.

    Args:
        x: fake samples `(g, n, d)`.
        sets: real samples and negatives.
        temperatures: see :func:`drift_loss`.
        distance_floor: see :func:`drift_loss`.
        affinity_floor: see :func:`drift_loss`.
        per_group: see :func:`drift_loss`.
    """

    factor: float | None = None

    def __init__(
        self,
        x: Tensor,
        sets: Sequence[SampleSet],
        temperatures: Sequence[float],
        distance_floor: float,
        affinity_floor: float,
        per_group: bool,
    ) -> None:
        self.x, self.sets, self.temperatures, self.per_group = x, sets, temperatures, per_group
        self.distance_floor, self.smallest = distance_floor, math.sqrt(affinity_floor)
        self.visits = [Visits(x, each.samples, self, each.indices) for each in sets]
        self.traced = not reverse_mode_only(x, *[tensor for each in sets for tensor in each[:2]])

    def conditioning(self, like: Tensor) -> Conditioning:
        """Return the conditioning of Laplace kernels."""
        return Conditioning(math.inf, 1.0)

    def near(self, like: Tensor, error: float) -> float:
        """Return infinity."""
        return math.inf

    def normalised_drift(self) -> tuple[Tensor, Tensor]:
        """Return the sum of the normalised drifts `(g, n, d)`, and the unit of the samples, `(g, 1, 1)` or one."""
        weights = torch.cat([each.weights for each in self.sets], -1).to(self.x.dtype)
        distances = torch.stack(
            [self._sum_of_distances(*each) for each in zip(self.sets, self.visits, strict=True)]
        ).sum(0)
        scale = self._mean(distances / self.x.shape[1]) / self._mean(weights.sum(-1))
        unit = (scale / math.sqrt(self.x.shape[2])).clamp_min(SMALLEST_SCALE)
        movement = torch.zeros_like(self.x)
        for (positive, towards), (negative, away) in self._fields(scale.clamp_min(SMALLEST_SCALE)):
            drift = (negative.unsqueeze(-1) * towards - positive.unsqueeze(-1) * away) / unit
            mean_square = self._mean(drift.square().mean((-2, -1)))
            movement = movement + drift / mean_square.clamp_min(SMALLEST_MEAN_SQUARE).sqrt()
        return movement, unit

    def _mean(self, of_groups: Tensor) -> Tensor:
        """Return the mean `(1, 1, 1)` of numbers of groups, or the numbers themselves `(g, 1, 1)`."""
        return (of_groups if self.per_group else of_groups.mean()).view(-1, 1, 1)

    def _sum_of_distances(self, each: SampleSet, visits: Visits) -> Tensor:
        """Return the weighted sum over all pairs of each group, `(g,)`."""
        if self.traced:
            return (self._distances(each) * each.weights.unsqueeze(-2)).sum((-2, -1))
        square = self.distance_floor**2
        parts = visits.visit(lambda _, groups: _Distances(each.weights[groups], square))
        return torch.cat([part.total for part in parts])

    def _fields(self, scale: Tensor) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """Yield the masses and pulls of real samples and of negatives, for each temperature."""
        if self.traced:
            yield from self._traced_fields(scale)
            return
        sums = [self._log_sums(*each, scale) for each in zip(self.sets, self.visits, strict=True)]
        rows = [torch.logaddexp(a[0], b[0]) / 2 for a, b in zip(*sums, strict=True)]
        fields = [
            self._displacements(each, visits, scale, rows, [columns / 2 for _, columns in own])
            for each, visits, own in zip(self.sets, self.visits, sums, strict=True)
        ]
        yield from map(list, zip(*fields, strict=True))

    def _log_sums(self, each: SampleSet, visits: Visits, scale: Tensor) -> list[tuple[Tensor, Tensor]]:
        def start(distances: TileDistances, groups: slice) -> LogSums:
            ones = torch.zeros_like(distances.b[..., 0])
            return LogSums(distances, self._logs(scale, groups), ones, each.indices, over_points=True)

        return joined([part.totals for part in visits.visit(start)])

    def _displacements(
        self, each: SampleSet, visits: Visits, scale: Tensor, rows: Sequence[Tensor], columns: Sequence[Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        def start(distances: TileDistances, groups: slice) -> Displacements:
            shifts = zip(self._logs(scale, groups), rows, columns, strict=True)
            affinities = [_Floored(LogKernel([log], ()), a, b, self.smallest) for log, a, b in shifts]
            return Displacements(
                distances, each.weights[groups], affinities, each.indices, self.x.dtype, left_out=self.smallest
            )

        return joined([part.totals for part in visits.visit(start)])

    def _logs(self, scale: Tensor, groups: slice) -> list[Log]:
        """Return the logarithms of the kernels of some groups."""
        own = scale[groups] if self.per_group else scale
        return [partial(_log, square=self.distance_floor**2, scale=own * tau) for tau in self.temperatures]

    def _distances(self, each: SampleSet) -> Tensor:
        return all_distances(self.x, each.samples, each.indices).clamp_min(self.distance_floor**2).sqrt()

    def _traced_fields(self, scale: Tensor) -> Iterator[list[tuple[Tensor, Tensor]]]:
        for tau in self.temperatures:
            logs = [each.indices.without(self._distances(each) / (scale * -tau), -math.inf) for each in self.sets]
            rows = torch.cat(logs, -1).logsumexp(-1, keepdim=True)
            found = []
            for each, log in zip(self.sets, logs, strict=True):
                affinity = ((log - rows / 2) - log.logsumexp(-2, keepdim=True) / 2).exp().clamp_min(self.smallest)
                affinity = affinity * each.weights.unsqueeze(-2)
                mass = affinity.sum(-1)
                found.append((mass, affinity @ each.samples - mass.unsqueeze(-1) * self.x))
            yield found


def _log(sq_dist: Tensor, square: float, scale: Tensor) -> Tensor:
    return sq_dist.clamp_min(square).sqrt_().div_(-scale)


class _Distances:
    """Weighted sums of distances of groups.

    Args:
        weights: weights of the samples, `(g, n)`.
        square: square of the smallest distance.
    """

    def __init__(self, weights: Tensor, square: float) -> None:
        self.weights, self.square = weights.unsqueeze(-2), square
        self.total = torch.zeros_like(weights[:, 0], dtype=total_dtype(weights.device))

    def visit(self, sq_dist: Tensor, tile: Tile, meets: bool, near: NearPairs | None) -> None:
        """Add a tile."""
        distances = sq_dist.clamp_min(self.square).sqrt_()
        self.total.add_((distances * self.weights[..., tile.columns]).sum((-2, -1)))


class _Floored(Affinity):
    """An affinity that is not below a number."""

    def __init__(self, log: LogKernel, of_points: Tensor, of_samples: Tensor, smallest: float) -> None:
        super().__init__(log, of_points, of_samples)
        self.smallest = smallest

    def values(self, sq_dist: Tensor, tile: Tile, dtype: torch.dtype) -> Tensor:
        """Return the affinities in a tile."""
        return super().values(sq_dist, tile, dtype).clamp_min_(self.smallest)
