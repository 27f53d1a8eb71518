"""Pairs of stacked scores that are too near for an expansion of their distances, see :func:`near_in_float64`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

AT_ONCE = 2**20
"""Number of differences of scores that are computed at once: 8 MB."""


class StackedNearPairs(NamedTuple):
    """Near pairs of stacked scores.

    Attributes:
        scores: `(..., s, d)` in float64, as they were before they were centred, which rounds.
        places: the indices of the pairs in a matrix of some rows of all pairs, a tensor `(k,)` for each dimension.
        start: the first of these rows.
    """

    scores: Tensor
    places: tuple[Tensor, ...]
    start: int = 0

    def repair_(self, sq_dist: Tensor) -> None:
        """Compute the squared distances of the pairs anew, from their differences."""
        for chosen in self._chunks():
            sq_dist[self._at(chosen)] = self._differences(chosen).square_().sum(-1)

    def of_rows(self, rows: slice) -> StackedNearPairs:
        """Return the near pairs in some rows of the matrix of all pairs."""
        *groups, row, column = self.places
        inside = (row >= rows.start) & (row < rows.stop)
        places = (*[index[inside] for index in groups], row[inside] - rows.start, column[inside])
        return StackedNearPairs(self.scores, places, rows.start)

    def taken_from_(self, weights: Tensor) -> Tensor:
        """Return the weights of the pairs `(k,)`, and set them to zero."""
        own = weights[self.places]
        weights[self.places] = 0.0
        return own

    def add_displacements_(self, target: Tensor, weights: Tensor, factor: float = 1.0) -> None:
        """Add the sums of `factor * weights * (z_j - z_i)` over the pairs of each row `i`."""
        for chosen in self._chunks():
            steps = self._differences(chosen).mul_((weights[chosen].to(target.dtype) * factor).unsqueeze(1))
            target.index_put_(self._at(chosen)[:-1], steps, accumulate=True)

    def _chunks(self) -> Iterator[slice]:
        step = max(1, AT_ONCE // self.scores.shape[-1])
        for first in range(0, len(self.places[0]), step):
            yield slice(first, first + step)

    def _at(self, chosen: slice) -> tuple[Tensor, ...]:
        return tuple(index[chosen] for index in self.places)

    def _differences(self, chosen: slice) -> Tensor:
        *groups, row, column = self._at(chosen)
        at_column, at_row = (*groups, column), (*groups, row + self.start)
        return self.scores[at_column].sub_(self.scores[at_row])


def near_places(sq_dist: Tensor, near: float | Tensor) -> tuple[Tensor, ...] | None:
    """Return the places of near pairs of two scores, or None if there are none.

    Args:
        sq_dist: squared distances `(..., s, s)` of stacked scores.
        near: number, or numbers `(g, 1, 1)`, below which a squared distance is near. Nothing is below zero.
    """
    # A minimum takes less time than a mask, also in NumPy, which slows down the operations of PyTorch after it.
    equal = sq_dist.diagonal(0, -2, -1).fill_(math.inf)
    if isinstance(near, Tensor):
        found = bool((sq_dist.amin((1, 2), keepdim=True) < near).any())
    else:
        found = sq_dist.amin().item() < near
    places = (sq_dist < near).nonzero(as_tuple=True) if found else None
    equal.zero_()
    return places
