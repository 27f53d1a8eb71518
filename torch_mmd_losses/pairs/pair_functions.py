"""Functions that are summed over the pairs of points and samples: the values of a kernel, or other functions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from torch_mmd_losses.distances import Pairs, Sample, squared_distances
from torch_mmd_losses.hand_written_gradients import reverse_mode_only
from torch_mmd_losses.kernels.contract import Conditioning, ValueAndSlope
from torch_mmd_losses.kernels.profiles import power_of_two
from torch_mmd_losses.kernels.summands import (
    Numbers,
    Summand,
    by_kind,
    clear_distance,
    common_exponent,
    is_trained,
    needs_float64,
    relative_slopes,
    sum_of_gram_matrices,
    sum_of_profiles,
    takes_groups,
    values_and_slopes,
    worst_conditioning,
)
from torch_mmd_losses.pairs.group_pairs import GroupPairs
from torch_mmd_losses.pairs.plan import DENSE_UP_TO
from torch_mmd_losses.precision import total_dtype


class Tile(NamedTuple):
    """Some pairs: those of some points with some samples, in some groups."""

    groups: slice
    rows: slice
    columns: slice


class Indices(NamedTuple):
    """Properties of the pairs of equal index: the point and the sample have the same index in a group.

    Attributes:
        distinct: leave these pairs out.
        same: these pairs are at distance zero.
    """

    distinct: bool
    same: bool

    def meet(self, tile: Tile) -> bool:
        """Return whether there are such pairs in the tile."""
        rows, columns = tile.rows, tile.columns
        return (self.distinct or self.same) and rows.start < columns.stop and columns.start < rows.stop

    @staticmethod
    def in_(matrix: Tensor, tile: Tile) -> Tensor:
        """Return a view of the entries of a tile `(..., rows, columns)` that belong to such pairs."""
        return matrix.diagonal(tile.rows.start - tile.columns.start, -2, -1)

    def without(self, matrix: Tensor, value: float = 0.0) -> Tensor:
        """Return a whole matrix `(..., p, n)` with `value` in place of pairs that are left out."""
        return matrix.masked_fill(equal_indices(matrix), value) if self.distinct else matrix


def equal_indices(matrix: Tensor) -> Tensor:
    """Return a mask `(p, n)` of the pairs of equal index in a matrix `(..., p, n)`."""
    return torch.eye(*matrix.shape[-2:], dtype=torch.bool, device=matrix.device)


class OfDistance(Protocol):
    """A function of the squared distances of pairs."""

    @property
    def factor(self) -> float | None:
        """The factor by which squared distances are multiplied before they are passed; None means 1."""

    def conditioning(self, like: Tensor) -> Conditioning:
        """Return how precise the distances have to be."""

    def near(self, like: Tensor, error: float) -> float:
        """Return the squared distance above which an error of `error` changes values by less than 100 %.

        The scores are on a CPU. The result is zero if this holds for all values, and infinite if it is not known.
        """


class ValuesOfPairs(Protocol):
    """Values of the pairs of points and samples, which may depend on their indices."""

    def values(self, sq_dist: Tensor, tile: Tile, dtype: torch.dtype, /) -> Tensor:
        """Return the values in a tile that depend on the distance, without a graph. It may overwrite distances."""


class PairFunction(OfDistance, ValuesOfPairs, Protocol):
    """A function of the pairs of points and samples."""

    @property
    def takes_groups(self) -> bool:
        """Whether :meth:`of_pairs` takes the pairs of several groups."""

    def of_pairs(self, pairs: Pairs, tile: Tile) -> Tensor:
        """Return the values of a tile, all parts together, by operations that autograd follows."""

    def of_all(self, points: Tensor, samples: Tensor, indices: Indices) -> Tensor:
        """Return the values `(g, p, n)` of all pairs, by operations that autograd follows."""


class KernelValues:
    """The values of a kernel.

    Args:
        summands: the summands of the kernel.
    """

    def __init__(self, summands: Sequence[Summand]) -> None:
        self.summands = summands
        self.radial, self.others = by_kind(summands)
        self.has_radial = len(self.radial) > 0  # PyTorch 2.6 does not compile bool(list)
        self.factor = common_exponent(self.radial) if self.radial else None
        self.takes_groups = all([takes_groups(summand) for summand in summands])  # noqa: C419 (PyTorch 2.6 compiles it)
        self._slopes: Numbers | None = None
        self._are_slopes_known = False

    def is_trained(self, like: Tensor) -> bool:
        """Return whether the values depend on trained parameters of a user's kernel, for points `(g, p, d)`."""
        return any([is_trained(summand, like[0]) for summand in self.summands])  # noqa: C419 (faster)

    def conditioning(self, like: Tensor) -> Conditioning:
        """Return the conditioning of the kernels of the distance."""
        return worst_conditioning(self.radial, like)

    def near(self, like: Tensor, error: float) -> float:
        """Return the distance above which the values do not depend on an error."""
        if not self._are_slopes_known:
            self._slopes, self._are_slopes_known = relative_slopes(self.radial), True
        return clear_distance(self._slopes, error)

    def values(self, sq_dist: Tensor, tile: Tile, dtype: torch.dtype) -> Tensor:
        """Return the values of the kernels of the distance."""
        if self.factor is not None:
            return sq_dist.exp2_()
        if len(self.radial) == 1 and self.radial[0].factor == 1 and self.radial[0].profile.by_hand:
            profile = self.radial[0].profile
            return (profile.overwriting or profile.value)(sq_dist)
        return sum_of_profiles(self.radial, sq_dist, dtype)

    def values_and_slopes(self, sq_dist: Tensor, tile: Tile, dtype: torch.dtype) -> ValueAndSlope:
        """Return the same with slopes."""
        if self.factor is not None:
            return power_of_two(sq_dist, self.factor)
        return values_and_slopes(self.radial, sq_dist, None, dtype=dtype, keep=False)

    def of_pairs(self, pairs: Pairs, tile: Tile) -> Tensor:
        """Return the values of a tile."""
        return sum_of_gram_matrices(self.summands, pairs)

    def of_all(self, points: Tensor, samples: Tensor, indices: Indices) -> Tensor:
        """Return the values of all pairs."""
        if reverse_mode_only(points, samples):
            return self._by_gram_matrices(self.summands, points, samples, indices)
        parts = []
        if self.radial:
            parts.append(self._of_all_distances(points, samples, indices))
        if self.others:
            parts.append(self._by_gram_matrices(self.others, points, samples, indices))
        return reduce(torch.add, parts)

    @staticmethod
    def _by_gram_matrices(summands: Sequence[Summand], points: Tensor, samples: Tensor, indices: Indices) -> Tensor:
        """Return the values of all pairs, of small groups together if all summands take groups."""
        if (
            all(map(takes_groups, summands))
            and points.shape[0] > 1
            and points.shape[1] + samples.shape[1] <= DENSE_UP_TO
        ):
            together = GroupPairs(Sample(points), Sample(samples), distinct=False, same=indices.same)
            return sum_of_gram_matrices(summands, together)
        groups = zip(points, samples, strict=True)
        pairs = [Pairs(Sample(x), Sample(y), distinct=False, same=indices.same) for x, y in groups]
        return torch.stack([sum_of_gram_matrices(summands, each) for each in pairs])

    def _of_all_distances(self, points: Tensor, samples: Tensor, indices: Indices) -> Tensor:
        dtype = points.dtype
        if needs_float64(self.radial, points):
            wide = total_dtype(points.device)
            points, samples = points.to(wide), samples.to(wide)
        sq_dist = squared_distances(points, samples)
        if indices.same or indices.distinct:
            sq_dist = sq_dist.masked_fill(equal_indices(sq_dist), 0)
        return sum_of_profiles(self.radial, sq_dist, dtype)
