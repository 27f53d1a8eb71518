"""Drifts from kernel values without logarithms, where no sum of values underflows.

Logarithms take several passes over the pairs, and float64. Values take few passes, in float32 if the samples are
float32. Their sums show whether values are precise enough. So values are tried first where the host may read numbers:
on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_mmd_losses.fields.field_sums import Displacements, joined
from torch_mmd_losses.fields.sample_sets import SampleSet
from torch_mmd_losses.fields.sharp_kernels import SharpKernel
from torch_mmd_losses.hand_written_gradients import reverse_mode_only
from torch_mmd_losses.kernels.profiles import LOG_2
from torch_mmd_losses.kernels.summands import RadialSummand
from torch_mmd_losses.pairs.pair_functions import Indices, KernelValues, Tile, ValuesOfPairs
from torch_mmd_losses.pairs.product_tiles import visit_distances
from torch_mmd_losses.pairs.tile_distances import NearPairs, TileDistances
from torch_mmd_losses.pairs.tiles import tile_side
from torch_mmd_losses.precision import full_precision, total_dtype

SMALLEST = {torch.float32: 1e-30, torch.float64: 1e-280}
"""Smallest sum of kernel values whose summands are precise, and to which values below the range add nothing.

The exponent of a value is rounded relative to itself. In float32, that of a value of exp(-80) is right within 1e-5.
"""

KEPT_TILES = 32
"""Number of tiles up to which values are kept for a second visit: 15 MB in float32."""


def is_possible(*tensors: Tensor) -> bool:
    """Return whether values may be tried: on a CPU, without a graph."""
    return (
        tensors[0].is_cpu
        and reverse_mode_only(*tensors)
        and not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))
    )


def are_kept(points: Tensor, samples: Tensor) -> bool:
    """Return whether there are few enough pairs to keep their values."""
    return points.shape[0] * points.shape[1] * samples.shape[1] <= KEPT_TILES * tile_side(None, points.device) ** 2


def are_large(sums: Tensor, dtype: torch.dtype) -> bool:
    """Return whether sums of values in a dtype are so large that their summands are precise."""
    return float(sums.amin()) >= SMALLEST[dtype]  # false for NaN


def divided(x: Tensor, sets: Sequence[SampleSet], summands: Sequence[RadialSummand]) -> Tensor | None:
    """Return the drift that is normalised over rows, or None if values underflow.

    Args:
        x: fake samples `(g, n, d)`.
        sets: real samples and negatives.
        summands: the kernel.
    """
    function = KernelValues(summands)
    pulls = []
    for each in sets:

        def start(distances: TileDistances, groups: slice, each: SampleSet = each) -> Displacements:
            return Displacements(distances, each.weights[groups], [function], each.indices, x.dtype, narrow=True)

        with full_precision(x.device):
            parts = visit_distances(x, each.samples, function, each.indices, start, "displacements")
        if not all(are_large(part.totals[0][0], part.x.dtype) for part in parts):
            return None
        mass, pull = joined([part.totals for part in parts])[0]
        pulls.append(pull.div_(mass.unsqueeze(-1).to(pull.dtype)))
    return pulls[0].sub_(pulls[1])


def divided_by_sharp(
    x: Tensor, sets: Sequence[SampleSet], summands: Sequence[RadialSummand], sharp: SharpKernel
) -> Tensor | None:
    """Return the drift that is normalised by a sharp kernel, or None if values underflow. See :func:`divided`."""
    function = KernelValues(summands)
    if function.factor is not None:  # a Gaussian kernel is its own sharp kernel, up to a factor
        rows = divided(x, sets, summands)
        return None if rows is None else rows.mul_(-2 * LOG_2 * function.factor)
    pulls = []
    for each in sets:

        def start(distances: TileDistances, groups: slice, each: SampleSet = each) -> _SharpSums:
            return _SharpSums(distances, each.weights[groups], function, sharp, each.indices, x.dtype)

        with full_precision(x.device):
            parts = visit_distances(x, each.samples, function, each.indices, start, "displacements")
        if not all(are_large(part.mass, part.of_slopes.x.dtype) for part in parts):
            return None
        mass, (_, pull) = torch.cat([part.mass for part in parts]), joined([part.of_slopes.totals for part in parts])[0]
        # The kernel is -2 times the slope of its sharp kernel.
        pulls.append(pull.mul_((-2 * parts[0].rate / mass).unsqueeze(-1).to(pull.dtype)))
    return pulls[0].sub_(pulls[1])


def balanced(x: Tensor, sets: Sequence[SampleSet], summands: Sequence[RadialSummand]) -> Tensor | None:
    """Return the drift that is normalised over rows and columns, or None if values underflow. See :func:`divided`."""
    function = KernelValues(summands)
    with full_precision(x.device):
        visits = [_visited(x, each, function) for each in sets]
        rows = [torch.cat([part.rows for part in parts]) for parts in visits]
        columns = [torch.cat([part.columns for part in parts]) for parts in visits]
        of_rows = rows[0] + rows[1]
        dtype = max((part.dtype for parts in visits for part in parts), key=lambda found: SMALLEST[found])
        if not all(are_large(sums, dtype) for sums in (of_rows, *columns)):
            return None
        (mass, towards), (own_mass, away) = [
            _displaced(x, each, function, each.weights * own.rsqrt(), parts)
            for each, own, parts in zip(sets, columns, visits, strict=True)
        ]
    # Both fields lack the factors of rows.
    factors = [(found / of_rows).unsqueeze(-1).to(towards.dtype) for found in (own_mass, mass)]
    return towards.mul_(factors[0]).sub_(away.mul_(factors[1]))


def _visited(x: Tensor, each: SampleSet, function: KernelValues) -> list[_Masses]:
    keep = are_kept(x, each.samples)

    def start(distances: TileDistances, groups: slice) -> _Masses:
        return _Masses(distances, groups, each.weights[groups], function, each.indices, x.dtype, keep)

    return visit_distances(x, each.samples, function, each.indices, start, "displacements")


def _displaced(
    x: Tensor, each: SampleSet, function: KernelValues, factors: Tensor, parts: Sequence[_Masses]
) -> tuple[Tensor, Tensor]:
    """Return the sums of values times factors of the samples, and the displacements with the same weights."""

    def start(distances: TileDistances, groups: slice) -> Displacements:
        return Displacements(distances, factors[groups], [function], each.indices, x.dtype, narrow=True)

    if not are_kept(x, each.samples):
        return joined(
            [part.totals for part in visit_distances(x, each.samples, function, each.indices, start, "displacements")]
        )[0]
    found = []
    for part in parts:
        visitor = start(part.distances, part.groups)
        for values, tile, near in part.kept:
            visitor.add(0, values, tile, near)
        found.append(visitor.totals)
    return joined(found)[0]


class _Masses:
    """Sums of the values of some groups over samples, with weights, and over points, without them."""

    def __init__(
        self,
        distances: TileDistances,
        groups: slice,
        weights: Tensor,
        function: ValuesOfPairs,
        indices: Indices,
        dtype: torch.dtype,
        keep: bool,
    ) -> None:
        a, b = distances.a, distances.b
        wide = total_dtype(a.device)
        self.distances, self.groups, self.function, self.indices = distances, groups, function, indices
        self.scores_dtype, self.dtype, self.keep = dtype, a.dtype, keep
        self.weights = weights.to(a.dtype).unsqueeze(-1)
        self.rows, self.columns = torch.zeros_like(a[..., 0], dtype=wide), torch.zeros_like(b[..., 0], dtype=wide)
        self.kept: list[tuple[Tensor, Tile, NearPairs | None]] = []

    def visit(self, sq_dist: Tensor, tile: Tile, meets: bool, near: NearPairs | None) -> None:
        """Add a tile."""
        values = self.function.values(sq_dist, tile, self.scores_dtype).contiguous()
        if meets and self.indices.distinct:
            self.indices.in_(values, tile).zero_()
        self.rows[:, tile.rows].add_((values @ self.weights[:, tile.columns]).squeeze(-1))
        self.columns[:, tile.columns].add_(values.sum(-2))
        if self.keep:
            self.kept.append((values, tile, near))


class _SharpSums:
    """Weighted sums of the values of a sharp kernel, and of displacements with its slopes over :attr:`rate`."""

    def __init__(
        self,
        distances: TileDistances,
        weights: Tensor,
        function: KernelValues,
        sharp: SharpKernel,
        indices: Indices,
        dtype: torch.dtype,
    ) -> None:
        self.of_slopes = Displacements(distances, weights, [function], indices, dtype, narrow=True)
        self.sharp, self.indices, self.rate = sharp, indices, 1.0
        self.mass = torch.zeros_like(self.of_slopes.totals[0][0])

    def visit(self, sq_dist: Tensor, tile: Tile, meets: bool, near: NearPairs | None) -> None:
        """Add a tile."""
        value, slope, self.rate = self.sharp.with_slope(sq_dist)
        if meets and self.indices.distinct:
            for matrix in (value, slope):
                self.indices.in_(matrix, tile).zero_()
        self.mass[:, tile.rows].add_((value @ self.of_slopes.weights[:, tile.columns]).squeeze(-1))
        self.of_slopes.add(0, slope, tile, near)
