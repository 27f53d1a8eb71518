"""Pairs of samples and their squared distances."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_mmd_losses.precision import total_dtype


def squared_distances(a: Tensor, b: Tensor, same: Tensor | None = None) -> Tensor:
    """Return the squared Euclidean distances `(..., m, n)` between the rows of `a` `(..., m, d)` and `b` `(..., n, d)`.

    `same` is a mask `(m, n)` of the pairs of a row with itself, whose distance is exactly zero.

    The expansion `|a|^2 + |b|^2 - 2 a.b` costs one matrix product, but it cancels if the rows share a large offset.
    Distances do not change under translation, so both sets are centred first. The centre is a constant for autograd,
    since its own gradient is zero. Distances that rounding made negative are raised to zero in the value only. The
    gradient stays that of the expansion, so coincident rows keep their second derivatives.
    """
    left, right = centred(a, b)
    squares_left, squares_right = left.square().sum(-1), right.square().sum(-1)
    expanded = squares_left.unsqueeze(-1) + squares_right.unsqueeze(-2) - 2 * (left @ right.mT)
    distances = expanded - expanded.detach().clamp_max(0)
    # A root would turn the rounding error in the distance of a row from itself into a visible bias.
    return distances if same is None else distances.masked_fill(same, 0)


def distance_factors(a: Tensor, b: Tensor, factor: float = 1) -> tuple[Tensor, Tensor]:
    """Return two matrices whose product is `factor` times the squared distances between rows of `a` and `b`.

    The product is `left @ right.mT` for `left` `(..., m, d + 2)` and `right` `(..., n, d + 2)`. No further pass over
    the distances is needed to add the squared norms. The rows should be centred, see :func:`squared_distances`.
    """
    squares_a, squares_b = a.square().sum(-1, keepdim=True), b.square().sum(-1, keepdim=True)
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
    """

    def __init__(self, a: Sample, b: Sample, *, distinct: bool, same: bool, shift: int = 0) -> None:
        self.a = a
        self.b = b
        self.distinct = distinct
        self.same = same
        self.shift = shift
        self._sq_dist: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """The shape `(m, n)` of a matrix with one entry for each pair."""
        return self.a.scores.shape[0], self.b.scores.shape[0]

    @property
    def sq_dist(self) -> Tensor:
        """The squared distances `(m, n)`, computed once for all kernels."""
        if self._sq_dist is None:
            same = self._equal_indices() if self.same else None
            self._sq_dist = squared_distances(self.a.scores, self.b.scores, same)
        return self._sq_dist

    def total(self, gram: Tensor) -> Tensor:
        """Return the sum of `gram` `(m, n)` over the pairs, in :func:`total_dtype`."""
        kept = gram.masked_fill(self._equal_indices(), 0) if self.distinct else gram
        return kept.sum(1).sum(dtype=total_dtype(gram.device))

    def _equal_indices(self) -> Tensor:
        m, n = self.shape
        device = self.a.scores.device
        return torch.arange(m, device=device).unsqueeze(1) + self.shift == torch.arange(n, device=device)


def number_of_pairs(m: int, n: int, *, distinct: bool) -> int:
    """Return the number of pairs of `m` and `n` samples, without those of equal index if `distinct`."""
    return m * n - m if distinct else m * n
