"""Pairs of samples and their squared distances.

The error of an expanded squared distance, `|a|^2 + |b|^2 - 2 a.b`, is a few units in the last place of the largest
squared norm around the centre, here called `largest`. The constants bound this error in the units of a kernel, see
:class:`torch_mmd_losses.kernels.contract.Conditioning`. Distances are squared.

=====================  ==============================  ==========================================================
constant               quantity                        guarantee
=====================  ==============================  ==========================================================
`FLOAT32_LIMIT`        `largest * steepness`, at most  expanded in float32, values and slopes of the kernel have
                                                       relative errors below 1e-5
`FLOAT64_LIMIT`        `largest * steepness`, at most  the same, expanded in float64
`FLOAT32_SQUARES`      `largest`, between              squares in float32 neither underflow nor overflow
`FLOAT32_ROOM`         `largest * steepness`, at most  functions of squared distances in float32 neither underflow
                                                       nor overflow
`CLEAR`                distance / error, at least      values have relative errors below 1e-5, if the elasticity is
                                                       one
`NEAR_IN_FLOAT64`      distance / `largest`, at least  expanded in float64, distances of float64 scores have nine
                                                       digits, and those of float32 scores seven
`SHARE_OF_NEAR_PAIRS`  pairs / near pairs, at least    the near pairs, each of which takes as long as a hundred
                                                       others, take no longer than the others
=====================  ==============================  ==========================================================

As many near pairs as rows and columns are always allowed, since samples are often compared with themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from torch_mmd_losses import hand_written_gradients
from torch_mmd_losses.precision import has_fast_float64, total_dtype

FLOAT32_LIMIT = 64.0
FLOAT64_LIMIT = FLOAT32_LIMIT * 2.0**29  # the unit in the last place of float64 is smaller by this power of two
FLOAT32_SQUARES = (2.0**-100, 2.0**100)
FLOAT32_ROOM = 2.0**60
NEAR_IN_FLOAT64 = {torch.float32: 1e-9, torch.float64: 1e-7}
CLEAR = 2e5
SHARE_OF_NEAR_PAIRS = 128

SINGULAR = 1e6
"""Steepness in float64 of a function with a root at zero."""

_FLOAT32_EPS = float(np.finfo(np.float32).eps)


def is_expandable(largest: float, steepness: float) -> bool:
    """Whether distances may be expanded in float64, given the largest squared norm around the centre.

    Infinite or NaN scores may be expanded: the result is NaN, as it should be.
    """
    return not FLOAT64_LIMIT < largest * (SINGULAR if steepness == math.inf else steepness) < math.inf


def near_in_float64(dtype: torch.dtype, largest: float, steepness: float) -> float:
    """Return the squared distance below which an expansion in float64 lacks digits for a kernel, or zero.

    Kernels of finite steepness do not need these digits. The slope of one of infinite steepness, such as a Laplace
    kernel, grows without limit as scores come closer, so that errors of small distances are errors of gradients.

    Args:
        dtype: dtype of the scores as they were given.
        largest: the largest squared norm of the scores around their centre.
        steepness: see :class:`Conditioning`.
    """
    return NEAR_IN_FLOAT64[dtype] * largest if steepness == math.inf and largest < math.inf else 0.0


def are_few(count: int, sq_dist: Tensor) -> bool:
    """Whether some pairs of a matrix `(..., m, n)` are so few that their distances are computed one by one."""
    most = sq_dist.numel()
    ends = most // sq_dist.shape[-1] + most // sq_dist.shape[-2]
    return count <= max(ends, most // SHARE_OF_NEAR_PAIRS)


def repaired(sq_dist: Tensor, a: Tensor, b: Tensor, near: Tensor) -> Tensor | None:
    """Return squared distances with those of near pairs from their differences, or None if these pairs are not few.

    Args:
        sq_dist: `(..., m, n)`.
        a: `(..., m, d)` in the dtype of the distances.
        b: `(..., n, d)`, likewise.
        near: a mask of the near pairs.
    """
    places = near.nonzero(as_tuple=True)
    if not len(places[0]):
        return sq_dist
    if not are_few(len(places[0]), sq_dist):
        return None
    *groups, row, column = places
    at_row, at_column = (*groups, row), (*groups, column)
    return sq_dist.index_put(places, (a[at_row] - b[at_column]).square().sum(-1))


def can_be_clear(largest: float, steepness: float, elasticity: float) -> bool:
    """Whether to check if distances expanded in float32 are far above their rounding errors."""
    smallest, highest = FLOAT32_SQUARES
    return (
        CLEAR * elasticity * _FLOAT32_EPS < 4  # no distance is above four times the largest squared norm
        and smallest <= largest <= highest
        and (steepness == math.inf or largest * steepness <= FLOAT32_ROOM)
    )


def are_clear_of_rounding(sq_dist: Tensor, largest: float, elasticity: float, zeros: int) -> bool:
    """Whether squared distances that were expanded in float32 on a CPU are far above their errors.

    Args:
        sq_dist: the distances, or multiples of them below zero.
        largest: the largest squared norm around the centre, or the same multiple of it.
        elasticity: see :class:`Conditioning` of kernels.
        zeros: number of pairs that are a score with itself.
    """
    # In NumPy, because only the host needs this number.
    bound = CLEAR * elasticity * _FLOAT32_EPS * largest
    return int(np.count_nonzero(np.abs(sq_dist.numpy()) <= abs(bound))) <= zeros


def squared_distances(a: Tensor, b: Tensor, same: Tensor | None = None) -> Tensor:
    """Return the squared Euclidean distances `(..., m, n)` between the rows of `a` `(..., m, d)` and `b` `(..., n, d)`.

    `same` is a mask `(m, n)` of the pairs of a row with itself. Their distance is exactly zero.

    The expansion `|a|^2 + |b|^2 - 2 a.b` costs one matrix product, but it cancels if rows are far from the centre
    compared with their distances. Distances do not change under translation, so both sets are centred first, and the
    expansion of float32 rows is computed in float64 on devices where that is fast. The centre is a constant to
    autograd, since its own gradient is zero. Distances that rounding made negative are raised to zero, but only in the
    value. The gradient is still the gradient of the expansion, so coincident rows keep their second derivatives.
    """
    distances = _expanded(*widened(a, b))[0].to(a.dtype)
    # A root would turn the rounding error in the distance of a row from itself into a visible bias.
    return distances if same is None else distances.masked_fill(same, 0)


def _expanded(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the expansion of the squared distances, and the squared norms of both sets around their centre."""
    left, right = centred(a, b)
    squares_left, squares_right = left.square().sum(-1), right.square().sum(-1)
    # Exact, and a pass over the small matrix instead of the large one.
    expanded = squares_left.unsqueeze(-1) + squares_right.unsqueeze(-2) + (-2 * left) @ right.mT
    return expanded - expanded.detach().clamp_max(0), squares_left, squares_right


def differences_squared(a: Tensor, b: Tensor) -> Tensor:
    """Return the squared distances as sums of squared differences, exact up to the rounding of each, but slow."""
    wide_a, wide_b = widened(a, b)
    distances = torch.zeros_like(wide_a[..., :, None, 0] - wide_b[..., None, :, 0])
    for column in range(a.shape[-1]):
        distances = distances + (wide_a[..., :, None, column] - wide_b[..., None, :, column]).square()
    return distances.to(a.dtype)


def widened(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return both sets in float64 on devices where that is fast."""
    if a.dtype == torch.float32 and has_fast_float64(a.device):
        wide = a.double()
        return wide, wide if a is b else b.double()
    return a, b


def squared_norms(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared norms `(..., m, 1)` and `(..., n, 1)` of both sets of rows."""
    squares = a.square().sum(-1, keepdim=True)
    return squares, squares if a is b else b.square().sum(-1, keepdim=True)


def distance_factors(
    a: Tensor, b: Tensor, factor: float = 1, squares: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Return two matrices whose product is `factor` times the squared distances between rows of `a` and `b`.

    The product is `left @ right.mT` for `left` `(..., m, d + 2)` and `right` `(..., n, d + 2)`. No further pass over
    the distances is needed to add the squared norms. The rows should be centred, see :func:`squared_distances`.
    `squares` are the :func:`squared_norms`, if they are known already.
    """
    squares_a, squares_b = squares or squared_norms(a, b)
    left = torch.cat([-2 * factor * a, squares_a, torch.full_like(squares_a, factor)], -1)
    right = torch.cat([b, torch.full_like(squares_b, factor), squares_b], -1)
    return left, right


def clamp_rounding_(sq_dist: Tensor, factor: float | None) -> Tensor:
    """Clamp squared distances that rounding made negative to zero, in place.

    If `factor` is given, it is negative, and `sq_dist` holds squared distances multiplied by it.

    Rounding matters for scores that spread over thousands of bandwidths, such as those of a diverging discriminator.
    Without the clamp, their kernel values would exceed the value of a score with itself, up to infinity.
    """
    return sq_dist.clamp_min_(0) if factor is None else sq_dist.clamp_max_(0)


def centred(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return both sets of rows `(..., m, d)` around a common centre; the same object twice if `a` is `b`."""
    if a is b:
        moved = a - _centre(a)
        return moved, moved
    centre = (_centre(a) + _centre(b)) / 2
    return a - centre, b - centre


def _centre(rows: Tensor) -> Tensor:
    return rows.detach().mean(-2, keepdim=True)


def _with_largest(a: Tensor, b: Tensor) -> tuple[Tensor, float]:
    """Return the expansion of the squared distances, and the largest squared norm around the centre."""
    if torch.is_grad_enabled():
        distances, left, right = _expanded(a, b)
        return distances, float(torch.maximum(left.detach().amax(), right.detach().amax()))
    left, right = centred(a, b)  # the same with fewer passes over the distances
    squares_left, squares_right = left.square().sum(-1), right.square().sum(-1)
    sums = squares_left.unsqueeze(-1) + squares_right.unsqueeze(-2)
    distances = sums.sub_(left @ right.mT, alpha=2).clamp_min_(0)
    return distances, float(torch.maximum(squares_left.amax(), squares_right.amax()))


class Sample:
    """The scores of a sample, `(m, d)`."""

    def __init__(self, scores: Tensor) -> None:
        self.scores = scores
        self._precise: Tensor | None = None

    @property
    def precise(self) -> Tensor:
        """The scores in :func:`total_dtype`, converted once, so that their gradients add up in that dtype too."""
        if self._precise is None:
            self._precise = self.scores.to(total_dtype(self.scores.device))
        return self._precise


class Pairs:
    """The pairs `(a_i, b_j)` of two samples.

    Args:
        a: `m` scores.
        b: `n` scores; the same object as `a` for pairs within a sample.
        distinct: leave out the pairs of equal index, `j = i + shift`.
        same: whether a pair of equal index consists of a score and itself.
        shift: see `distinct`. It may differ from zero if `a` and `b` are parts of larger samples.
        float32_limit: see :data:`FLOAT32_LIMIT`.
    """

    def __init__(
        self,
        a: Sample,
        b: Sample,
        *,
        distinct: bool,
        same: bool,
        shift: int = 0,
        float32_limit: float = FLOAT32_LIMIT,
    ) -> None:
        self.a = a
        self.b = b
        self.distinct = distinct
        self.same = same
        self.shift = shift
        self.float32_limit = float32_limit
        self._sq_dists: dict[str, tuple[Tensor, float]] = {}
        self._mask: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """The shape `(m, n)` of a matrix with one entry for each pair."""
        return self.a.scores.shape[-2], self.b.scores.shape[-2]

    def sq_dist(self, conditioning: Callable[[Tensor], tuple[float, float, bool, float]], *, by_hand: bool) -> Tensor:
        """Return the squared distances `(m, n)`, computed once for all kernels that can share them.

        Args:
            conditioning: returns the :class:`Conditioning` of the kernel for scores like the given ones.
            by_hand: whether the kernel belongs to the library. If so, it takes any dtype, and distances of float32
                scores are float64 if they might not fit into float32. Its conditioning is then known to the host.
        """
        a, b = self.a.scores, self.b.scores
        if not (
            a.is_cpu and hand_written_gradients.reverse_mode_only(a, b)
        ):  # reading a number would be a synchronisation, or fail
            if by_hand and a.dtype == torch.float32 and total_dtype(a.device) == torch.float64:
                steepness, _, is_moderate, _ = conditioning(a)
                if steepness == math.inf or not is_moderate:
                    return self._computed("wide", lambda: (squared_distances(a.double(), b.double()), 0.0))[0]
            return self._computed("traced", lambda: (squared_distances(a, b), 0.0))[0]
        steepness, _, is_moderate, _ = conditioning(a)
        if a.dtype == torch.float32 and is_moderate and steepness < math.inf:
            distances, largest = self._computed("float32", lambda: _with_largest(a, b))
            if largest * steepness <= self.float32_limit:
                return distances
        distances, largest = self._computed("float64", lambda: _with_largest(*widened(a, b)))
        expandable, near = is_expandable(largest, steepness), near_in_float64(a.dtype, largest, steepness)
        if expandable and near:
            distances, _ = self._computed("repaired", lambda: (self._repaired(distances, near), 0.0))
        if not expandable:
            distances, _ = self._computed("differences", lambda: (differences_squared(*widened(a, b)), 0.0))
        return distances if by_hand else distances.to(a.dtype)

    def _repaired(self, distances: Tensor, near: float) -> Tensor:
        rows = widened(self.a.scores, self.b.scores)
        close = distances.detach() < near
        if self.same:
            close &= ~self._equal_indices()
        found = repaired(distances, *rows, close)
        return differences_squared(*rows) if found is None else found

    def _computed(self, way: str, compute: Callable[[], tuple[Tensor, float]]) -> tuple[Tensor, float]:
        """Return distances and the largest squared norm, computed once for each way."""
        if way not in self._sq_dists:
            distances, largest = compute()
            self._sq_dists[way] = self._at_zero(distances), largest
        return self._sq_dists[way]

    def _at_zero(self, distances: Tensor) -> Tensor:
        return distances.masked_fill(self._equal_indices(), 0) if self.same else distances

    def total(self, gram: Tensor) -> Tensor:
        """Return the sum of `gram` `(m, n)` over the pairs, in :func:`total_dtype`."""
        kept = gram.masked_fill(self._equal_indices(), 0) if self.distinct else gram
        return kept.sum(1).sum(dtype=total_dtype(gram.device))

    def _equal_indices(self) -> Tensor:
        if self._mask is None:
            m, n = self.shape
            device = self.a.scores.device
            self._mask = torch.arange(m, device=device).unsqueeze(1) + self.shift == torch.arange(n, device=device)
        return self._mask
