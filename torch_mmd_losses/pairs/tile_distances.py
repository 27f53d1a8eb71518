"""Precise squared distances of tiles, however far some scores are from the others."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses.distances import (
    FLOAT32_LIMIT,
    are_clear_of_rounding,
    are_few,
    can_be_clear,
    centred,
    clamp_rounding_,
    differences_squared,
    distance_factors,
    is_expandable,
    near_in_float64,
    squared_norms,
    widened,
)
from torch_mmd_losses.kernels.contract import Conditioning
from torch_mmd_losses.precision import total_dtype


class NearPairs(NamedTuple):
    """Pairs of a tile that are too near for an expansion. Their distances were recomputed.

    Attributes:
        places: the indices of the pairs in the tile, a tensor `(k,)` for each of its dimensions.
        differences: the differences `b - a` of the scores of each pair, `(k, d)` in float64.
    """

    places: tuple[Tensor, ...]
    differences: Tensor

    def chosen(self, which: Tensor) -> NearPairs:
        """Return some of the pairs, given by a mask."""
        return NearPairs(tuple(index[which] for index in self.places), self.differences[which])

    def taken_from_(self, weights: Tensor) -> Tensor:
        """Return the weights of the pairs `(k,)` in a tile, and set them to zero."""
        own = weights[self.places]
        weights[self.places] = 0.0
        return own

    def transposed(self) -> NearPairs:
        """Return the same pairs of the transposed tile."""
        *groups, rows, columns = self.places
        return NearPairs((*groups, columns, rows), -self.differences)


class TileDistances:
    """A way to compute the squared distances of a tile.

    Args:
        a: scores `(..., m, d)`, around the centre unless `far`.
        b: scores `(..., n, d)`, likewise.
        factor: the distances are multiplied by it, unless it is None.
        far: sum up squared differences, instead of expanding them.
        squares: the squared norms of the scores, if they are known.
        bound: largest squared norm and elasticity, for a check of each tile, or None.
        largest: largest squared norm, if the distances are in float32 and the host knows it.
        near: squared distance below which :meth:`repair` recomputes distances; zero means no such pairs.
        scores: `a` and `b` before they were centred, which rounds.
        whole: whether all pairs are one tile. Its distances are then computed without the factors of a product, which
            take more time than they save.
    """

    def __init__(
        self,
        a: Tensor,
        b: Tensor,
        factor: float | None,
        *,
        far: bool,
        squares: tuple[Tensor, Tensor] | None = None,
        bound: tuple[float, float] | None = None,
        largest: float = math.inf,
        near: float = 0.0,
        scores: tuple[Tensor, Tensor] | None = None,
        whole: bool = False,
    ) -> None:
        self.a, self.b, self.factor, self.far, self.bound, self.largest = a, b, factor, far, bound, largest
        self.near, self.scores = near, scores or (a, b)
        self.squares = squares if whole else None
        if not far and not whole:
            self.left, self.right = distance_factors(a, b, factor or 1, squares)

    def of(self, rows: slice, columns: slice) -> Tensor:
        """Return the distances of a tile."""
        if self.far:
            return differences_squared(self.a[..., rows, :], self.b[..., columns, :]).mul_(self.factor or 1)
        if self.squares is not None:
            sums, unit = self.squares[0] + self.squares[1].mT, self.factor or 1
            if unit != 1:
                sums.mul_(unit)
            sq_dist = sums.baddbmm_(self.a, self.b.mT, alpha=-2 * unit)
        else:
            sq_dist = self.left[..., rows, :] @ self.right[..., columns, :].mT
        return sq_dist if self.near else clamp_rounding_(sq_dist, self.factor)  # those below zero are near

    def repair(
        self, sq_dist: Tensor, rows: slice, columns: slice, equal: Tensor | None
    ) -> tuple[bool, NearPairs | None]:
        """Recompute the distances of near pairs, and set those of a score from itself to zero.

        Args:
            sq_dist: the distances of a tile.
            rows: the rows of the tile.
            columns: its columns.
            equal: a view of the distances of scores from themselves, or of pairs that are left out.

        Returns:
            Whether the distances are precise now (they are unless too many pairs are near), and the near pairs.
        """
        unit = self.factor or 1.0
        found: NearPairs | None = None
        is_precise = True
        if self.near:
            if equal is not None:
                equal.fill_(math.copysign(math.inf, unit))
            closest = float(sq_dist.amax() if unit < 0 else sq_dist.amin())
            if closest / unit < self.near:
                near = sq_dist > self.near * unit if unit < 0 else sq_dist < self.near * unit
                is_precise = are_few(int(near.sum()), sq_dist)
                if is_precise:
                    found = self._computed_anew(sq_dist, rows, columns, near.nonzero(as_tuple=True))
        if equal is not None:
            equal.zero_()
        return is_precise, found

    def _computed_anew(self, sq_dist: Tensor, rows: slice, columns: slice, places: tuple[Tensor, ...]) -> NearPairs:
        a, b = self.scores
        *groups, row, column = places
        ends = (a[..., rows, :], row), (b[..., columns, :], column)
        x, y = (self._rows(scores, (*groups, index)) for scores, index in ends)
        differences = y.sub_(x)
        sq_dist[places] = (differences.square().sum(-1) * (self.factor or 1.0)).to(sq_dist.dtype)
        return NearPairs(places, differences)

    @staticmethod
    def _rows(scores: Tensor, places: tuple[Tensor, ...]) -> Tensor:
        return scores[places].to(total_dtype(scores.device))

    def are_precise(self, sq_dist: Tensor, *, zeros: int) -> bool:
        """Whether the distances of a tile are precise enough, as far as this has to be checked."""
        if self.bound is None:
            return True
        largest, elasticity = self.bound
        return are_clear_of_rounding(sq_dist, largest * (self.factor or 1), elasticity, zeros)


def ways_of_distances(
    a: Tensor, b: Tensor, conditioning: Conditioning, factor: float | None
) -> Iterator[TileDistances]:
    """Yield ways to compute the distances of scores, each more precise than the previous way; the last always suffices.

    The caller has to :meth:`~TileDistances.repair` the distances of each tile.

    On a CPU the host reads how far scores are from their centre, and starts with the fastest way that is precise enough
    or can be checked. On other devices reading would need a synchronisation, so the only way is an expansion, in
    float64 on devices where that is fast.

    Args:
        a: scores `(..., m, d)`.
        b: scores `(..., n, d)`, or `a`.
        conditioning: of the kernel.
        factor: see :class:`TileDistances`.
    """
    steepness, elasticity, is_moderate, _ = conditioning
    if not a.is_cpu:
        if not is_moderate:  # float32 has no room, however fast it is
            wide = a.to(total_dtype(a.device))
            a, b = wide, wide if a is b else b.to(wide.dtype)
        yield TileDistances(*centred(*widened(a, b)), factor, far=False)
        return
    is_single, dtype = a.dtype == torch.float32, a.dtype
    left, right = centred(a, b)
    squares = squared_norms(left, right)
    largest = largest_square(squares)
    if not is_moderate:
        pass  # float32 has no room
    elif is_single and largest * steepness <= FLOAT32_LIMIT:
        yield TileDistances(left, right, factor, far=False, squares=squares, largest=largest)
    elif is_single and can_be_clear(largest, steepness, elasticity):
        bound = (largest, elasticity)
        yield TileDistances(left, right, factor, far=False, squares=squares, bound=bound, largest=largest)
    if is_single:
        a, b = widened(a, b)
        left, right = centred(a, b)
        squares = squared_norms(left, right)
        largest = largest_square(squares)
    expandable = is_expandable(largest, steepness)
    near = near_in_float64(dtype, largest, steepness) if expandable else 0.0
    if expandable:
        yield TileDistances(left, right, factor, far=False, squares=squares, near=near, scores=(a, b))
    if near or not expandable:  # pragma: no branch: nobody asks for more than precise distances
        yield TileDistances(a, b, factor, far=True)  # not around the centre, which rounds too


def largest_square(squares: tuple[Tensor, Tensor]) -> float:
    """Return the largest squared norm."""
    first, second = squares
    return max(float(first.max()), float(second.max())) if first is not second else float(first.max())


def differences_weighted(slope: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return the sums `(..., m, d)` of `slope[i, j] * (y[j] - x[i])` over `j`, without cancellation, but slowly.

    Args:
        slope: weights `(..., m, n)`.
        x: scores `(..., m, d)`.
        y: scores `(..., n, d)`.
    """
    columns = zip(x.unbind(-1), y.unbind(-1), strict=True)
    return torch.stack([(slope * (q.unsqueeze(-2) - p.unsqueeze(-1))).sum(-1) for p, q in columns], -1)
