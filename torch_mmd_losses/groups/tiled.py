"""MMD^2 of large groups with its gradients, one group after the other and tile by tile.

Memory grows with the number of samples, not with the number of pairs. Weights cost next to nothing: the scores in the
columns of a tile are multiplied by their weights once for all tiles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses.groups.call import (
    Part,
    Plan,
    Tensors,
    block,
    parts,
    zero_gradients,
    zeros,
)
from torch_mmd_losses.kernels.contract import Conditioning, is_moderate
from torch_mmd_losses.kernels.summands import values_and_slopes, worst_conditioning
from torch_mmd_losses.pairs.tile_distances import (
    NearPairs,
    TileDistances,
    differences_weighted,
    ways_of_distances,
)
from torch_mmd_losses.pairs.tiles import tile_side, tiles
from torch_mmd_losses.precision import total_dtype


def values_and_gradients(plan: Plan, tensors: Tensors, wanted: Sequence[bool]) -> tuple[Tensor, list[Tensor | None]]:
    """Return the value of each group, from the kernels of the distance, and the gradients of the sum of the values.

    Args:
        plan: the call.
        tensors: its tensors.
        wanted: for each tensor, whether its gradient is wanted.

    Returns:
        Values `(G,)` in :func:`total_dtype`, and for each tensor its gradient, or None.
    """
    values, gradients = zeros(tensors), zero_gradients(tensors, wanted)
    for group in range(len(values)):
        one = tensors.of(slice(group, group + 1))
        add_group(plan, one, values[group], [None if g is None else g[group] for g in gradients])
    return values, gradients


def add_group(plan: Plan, one: Tensors, value: Tensor, gradients: Sequence[Tensor | None]) -> None:
    """Add the value of a single group, and the wanted gradients."""
    demands = _demands(plan, one)
    for part in parts(one, plan.estimator):
        _add_part(plan, part, one, demands, value, gradients)


class _Demands(NamedTuple):
    """The precision that a group needs in its distances.

    Attributes:
        conditioning: of the kernel, for distances without the scale.
        is_wide: see :meth:`Conditioning.is_wide`.
    """

    conditioning: Conditioning
    is_wide: bool


def _demands(plan: Plan, one: Tensors) -> _Demands:
    conditioning = worst_conditioning(plan.radial, one.real[0])
    steepness, elasticity, moderate, half_peak = conditioning
    if not one.real.is_cpu:  # the host does not know the scale
        return _Demands(Conditioning(steepness, elasticity, moderate and one.scale is None), is_wide=False)
    scale, stack = 1.0 if one.scale is None else float(one.scale), torch.cat(one.samples(), 1)[0]
    unit = scale**2
    scaled = Conditioning(steepness / unit, elasticity, moderate and is_moderate(scale), half_peak * unit)
    largest = float((stack - stack.mean(0)).square().sum(1).amax()) if half_peak else math.inf
    return _Demands(scaled, scaled.is_wide(largest))


def _add_part(
    plan: Plan, part: Part, one: Tensors, demands: _Demands, value: Tensor, gradients: Sequence[Tensor | None]
) -> None:
    """Add the contribution of a part of one group to its value and to the wanted gradients."""
    a, b = (one.samples()[sample][0] for sample in (part.a, part.b))
    for distances in ways_of_distances(  # pragma: no branch (the last way is precise)
        a, b, demands.conditioning, None
    ):
        walk = _Walk(plan, part, one, demands, distances, gradients)
        if walk.is_precise():
            break
    within = one.within()[part.a] if part.is_within else None
    factor = value.new_full((), part.factor) if within is None else within[0] * part.factor
    total = walk.sides[0].total()
    value.add_(factor * total)
    for side in walk.sides:
        side.add_gradients(factor * (2 if part.is_within else 1), walk.unit)
    if gradients[2] is not None and one.scale is not None:
        gradients[2].add_(factor * -2 / one.scale[0].to(value.dtype) * walk.along)
    to_within = gradients[5 + part.a] if part.is_within else None
    if to_within is not None:
        to_within.add_(total)


class _Walk:
    """The sums over all tiles of a part."""

    def __init__(
        self,
        plan: Plan,
        part: Part,
        one: Tensors,
        demands: _Demands,
        distances: TileDistances,
        gradients: Sequence[Tensor | None],
    ) -> None:
        self.plan, self.part, self.demands, self.distances = plan, part, demands, distances
        self.dtype = one.real.dtype
        self.unit = None if one.scale is None else one.scale[0].to(total_dtype(one.scale.device)).square()
        self.block = block(distances.a, distances.b, part)
        self.along = distances.a.new_zeros((), dtype=total_dtype(distances.a.device))
        self.with_scale = gradients[2] is not None
        scores = distances.a, distances.b
        weights = [_weights(one, sample) for sample in (part.a, part.b)]
        self.sides = [
            _Side(
                scores[i],
                scores[1 - i],
                weights[i],
                weights[1 - i],
                distances.far,
                gradients[sample],
                gradients[3 + sample],
            )
            for i, sample in enumerate((part.a,) if part.is_within else (part.a, part.b))
        ]

    def is_precise(self) -> bool:
        """Visit all tiles, and return whether their distances are precise enough."""
        part, block = self.part, self.block
        for rows, columns in tiles(block, tile_side(self.plan.tile_size, block.a.device)):
            sq_dist = self.distances.of(rows, columns)
            diagonal = block.diagonal(sq_dist, rows, columns) if block.meets_diagonal(rows, columns) else None
            equal = diagonal if part.is_within else None
            is_precise, near = self.distances.repair(sq_dist, rows, columns, equal)
            if not is_precise or not self.distances.are_precise(sq_dist, zeros=0 if equal is None else len(equal)):
                return False
            if self.unit is not None:
                sq_dist.mul_(self.unit.reciprocal().to(sq_dist.dtype))
            kept = sq_dist.clone() if self.with_scale else None
            value, slope, rate = values_and_slopes(
                self.plan.radial, sq_dist, None, dtype=self.dtype, keep=False, in_float64=self.demands.is_wide
            )
            if slope.dtype != block.a.dtype:  # this check costs less than a conversion that changes nothing
                slope = slope.to(block.a.dtype)
            if part.distinct and diagonal is not None:
                for matrix in (value, slope):
                    block.diagonal(matrix, rows, columns).zero_()
            mirrored = part.is_within and rows != columns  # the tile below the diagonal is the transpose of this one
            if kept is not None:
                times = 2 if mirrored else 1
                self.along += self.sides[0].weighted_sum(rows, columns, kept.mul_(slope)) * (times * rate)
            apart = None if near is None else near.taken_from_(slope)
            self.sides[0].add(rows, columns, value, slope, rate, near, apart)
            if mirrored or not part.is_within:
                transposed, pairs = value.T, near and near.transposed()
                slopes = transposed if slope is value else slope.T
                self.sides[-1].add(columns, rows, transposed, slopes, rate, pairs, apart)
        return True


class _Side:
    """Weighted sums over the rows of all tiles, `x` being the scores in the rows and `y` those in the columns."""

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        own: Tensor,
        other: Tensor,
        far: bool,
        gradient: Tensor | None,
        to_weights: Tensor | None,
    ) -> None:
        self.x, self.y, self.own, self.other, self.far = x, y, own, other, far
        self.narrow = other.to(x.dtype)
        self.gradient, self.to_weights = gradient, to_weights
        self.values = torch.zeros(len(x), dtype=total_dtype(x.device), device=x.device)
        if gradient is not None:
            self.columns = y * self.narrow.unsqueeze(1)
            self.slopes, self.products = x.new_zeros(len(x), 1), torch.zeros_like(x)

    def add(
        self,
        rows: slice,
        columns: slice,
        value: Tensor,
        slope: Tensor,
        rate: float,
        near: NearPairs | None,
        apart: Tensor | None,
    ) -> None:
        """Add a tile, of which the slopes of near pairs are zero, and given apart."""
        other = self.narrow[columns]
        sums = value @ (other if other.dtype == value.dtype else self.other[columns].to(value.dtype))
        self.values[rows] += sums
        if self.gradient is None:
            return
        if self.far:
            differences = differences_weighted(slope * other, self.x[rows], self.y[columns])
            self.products[rows].sub_(differences, alpha=rate)
            return
        self.slopes[rows, 0].add_(sums if slope is value else slope @ other, alpha=rate)
        self.products[rows].addmm_(slope, self.columns[columns], alpha=rate)
        if near is not None and apart is not None:
            row, column = near.places
            steps = (apart * other[column]).unsqueeze(1) * near.differences
            self.products[rows].index_add_(0, row, steps, alpha=rate)

    def weighted_sum(self, rows: slice, columns: slice, matrix: Tensor) -> Tensor:
        """Return the weighted sum of a tile of any numbers."""
        return torch.dot(self.own[rows].to(self.values.dtype), (matrix @ self.narrow[columns]).to(self.values.dtype))

    def total(self) -> Tensor:
        """Return the weighted sum of the values."""
        return torch.dot(self.own.to(self.values.dtype), self.values)

    def add_gradients(self, factor: Tensor, unit: Tensor | None) -> None:
        """Add the wanted gradients of `factor` times the weighted sum, as if only the rows depended on the scores."""
        if self.to_weights is not None:
            self.to_weights += factor * self.values
        if self.gradient is not None:
            # half the gradient of each pair: sum_j f' (x_i - y_j), from the sums of f' and of f' y_j
            pull = self.products if self.far else self.slopes * self.x - self.products
            pull.mul_((2 * factor if unit is None else 2 * factor / unit).to(pull.dtype))
            self.gradient += pull.mul_(self.own.to(pull.dtype).unsqueeze(1)).to(self.gradient.dtype)


def _weights(one: Tensors, sample: int) -> Tensor:
    """Return the weights of a sample in one group, or ones, in their own dtype: in float32 their sum is not one."""
    weights, scores = one.weights()[sample], one.samples()[sample][0]
    return scores.new_ones(len(scores)) if weights is None else weights[0]
