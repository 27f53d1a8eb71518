"""The pairs within each of several groups, and their squared distances."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from torch_mmd_losses import hand_written_gradients
from torch_mmd_losses.distances import (
    Pairs,
    Sample,
    centred,
    differences_squared,
    is_expandable,
    near_in_float64,
    repaired,
    squared_distances,
)
from torch_mmd_losses.kernels.contract import Conditioning
from torch_mmd_losses.precision import has_fast_float64, total_dtype


class GroupPairs(Pairs):
    """The pairs within each of several groups, of samples `(g, p, d)` and `(g, q, d)`."""

    def sq_dist(self, conditioning: Callable[[Tensor], tuple[float, float, bool, float]], *, by_hand: bool) -> Tensor:
        """Return the squared distances `(g, p, q)`, in which no group influences the precision of the others."""
        a, b = self.a.scores, self.b.scores
        steepness, _, is_moderate, _ = conditioning(a[0]) if by_hand or is_readable(a, b) else Conditioning()
        in_float64 = by_hand and (steepness == math.inf or not is_moderate)

        def compute() -> tuple[Tensor, float]:
            same = self._equal_indices() if self.same else None
            return distances_of_groups(a, b, same, None, in_float64=in_float64, steepness=steepness), 0.0

        distances, _ = self._computed(f"{in_float64} {steepness}", compute)
        return distances if by_hand else distances.to(a.dtype)


def pairs_within_groups(a: Tensor, b: Tensor) -> GroupPairs:
    """Return the pairs of `a` `(g, p, d)` and `b` `(g, q, d)`, which may be the same object."""
    left = Sample(a)
    return GroupPairs(left, left if b is a else Sample(b), distinct=False, same=b is a)


def is_readable(a: Tensor, b: Tensor) -> bool:
    """Return whether the host may read numbers: elsewhere that would be a synchronisation, or fail."""
    return a.is_cpu and hand_written_gradients.reverse_mode_only(a, b)


def distances_of_groups(
    a: Tensor, b: Tensor, same: Tensor | None, scale: Tensor | None, *, in_float64: bool, steepness: float
) -> Tensor:
    """Return the squared distances in units of the squared scale.

    Args:
        a: scores `(g, p, d)`.
        b: scores `(g, q, d)`.
        same: a mask `(p, q)` of the pairs of a score and itself, or None.
        scale: the scale of each group, or None.
        in_float64: whether the kernel needs distances in float64.
        steepness: see :class:`Conditioning`. It is not used where the host may not read numbers.
    """
    dtype = a.dtype
    if in_float64 or has_fast_float64(a.device):
        wide = a.to(total_dtype(a.device))
        a, b = wide, wide if b is a else b.to(wide.dtype)
    sq_dist = squared_distances(a, b, same)
    if is_readable(a, b):
        sq_dist = _checked(sq_dist, a, b, same, dtype, scale, steepness)
    return sq_dist if scale is None else sq_dist / scale.to(sq_dist.dtype).square().view(-1, 1, 1)


def _checked(
    sq_dist: Tensor,
    a: Tensor,
    b: Tensor,
    same: Tensor | None,
    dtype: torch.dtype,
    scale: Tensor | None,
    steepness: float,
) -> Tensor:
    """Return squared distances, from differences where an expansion lacks digits."""
    squares = [scores.square().sum(-1).amax(-1) for scores in centred(a.detach(), b.detach())]
    of_groups = torch.maximum(*squares)
    finite = torch.where(of_groups.isfinite(), of_groups, 0.0)
    largest = float(finite.amax())
    smallest = 1.0 if scale is None else float(scale.detach().amin())
    if not is_expandable(largest, steepness / smallest**2):
        return differences_squared(a, b)
    unit = near_in_float64(dtype, 1.0, steepness)
    if not unit:
        return sq_dist
    close = sq_dist.detach() < (unit * finite).view(-1, 1, 1)
    found = repaired(sq_dist, a, b, close if same is None else close & ~same)
    return differences_squared(a, b) if found is None else found
