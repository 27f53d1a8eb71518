"""The pairs of samples behind one mean kernel value: their squared distances and the mean over them."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_mmd_losses.types import Group


def sq_dist(a: Tensor, b: Tensor, same: Tensor | None = None) -> Tensor:
    """Return the squared Euclidean distances `(..., m, n)` between the rows of `a` `(..., m, d)` and `b` `(..., n, d)`.

    `same` is a mask `(m, n)` of pairs that are a row and itself: those are at distance zero.

    The expansion `|a|^2 + |b|^2 - 2 a.b` costs one matrix product, but cancels when the rows share a large offset.
    Distances do not change under translation, so both are centred first; the centre is a constant to autograd, since
    its own gradient is zero. Rounding below zero is lifted to zero in the value only: the gradient stays that of the
    expansion, so that coincident rows keep their second derivatives.
    """
    left, right = centred(a, b)
    squares_left, squares_right = left.square().sum(-1), right.square().sum(-1)
    expanded = squares_left.unsqueeze(-1) + squares_right.unsqueeze(-2) - 2 * (left @ right.mT)
    lifted = expanded - expanded.detach().clamp_max(0)
    # A root would turn what rounding leaves at the distance of a row from itself into a visible bias.
    return lifted if same is None else lifted.masked_fill(same, 0)


def centred(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return both sets of rows `(..., m, d)` around a common centre, the same object twice if they are the same."""
    if a is b:
        moved = a - _centre(a)
        return moved, moved
    centre = (_centre(a) + _centre(b)) / 2
    return a - centre, b - centre


def _centre(rows: Tensor) -> Tensor:
    return rows.detach().mean(-2, keepdim=True)


class Sample:
    """The scores of one group `(m, d)`."""

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
    """The pairs `(a_i, b_j)` that one mean kernel value runs over.

    Args:
        a: `m` scores.
        b: `n` scores; the same object as `a` for the pairs within one set.
        group: which samples the pairs are made of.
        distinct: leave out the pairs of equal index, `j = i + shift`.
        same: pairs of equal index are a sample and itself.
        shift: see `distinct`.
    """

    def __init__(self, a: Sample, b: Sample, group: Group, *, distinct: bool, same: bool, shift: int = 0) -> None:
        self.a = a
        self.b = b
        self.group = group
        self.distinct = distinct
        self.same = same
        self.shift = shift
        self._sq_dist: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of scores `(m, n)`."""
        return self.a.scores.shape[0], self.b.scores.shape[0]

    @property
    def sq_dist(self) -> Tensor:
        """Squared distances `(m, n)`, computed once however many kernels look at them."""
        if self._sq_dist is None:
            self._sq_dist = sq_dist(self.a.scores, self.b.scores, self._equal_indices() if self.same else None)
        return self._sq_dist

    def total(self, gram: Tensor) -> Tensor:
        """Return the sum of `gram` `(m, n)` over these pairs, in :func:`total_dtype`."""
        kept = gram.masked_fill(self._equal_indices(), 0) if self.distinct else gram
        return kept.sum(1).sum(dtype=total_dtype(gram.device))

    def _equal_indices(self) -> Tensor:
        m, n = self.shape
        device = self.a.scores.device
        return torch.arange(m, device=device).unsqueeze(1) + self.shift == torch.arange(n, device=device)


def count(m: int, n: int, *, distinct: bool) -> int:
    """Return the number of pairs of `m` and `n` samples, without those of equal index if `distinct`."""
    return m * n - m if distinct else m * n


def total_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype in which totals are kept: MMD^2 is a small difference of means of order one."""
    return torch.float32 if device.type == "mps" else torch.float64
