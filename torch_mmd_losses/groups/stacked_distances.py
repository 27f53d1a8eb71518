"""Squared distances of many small groups at once, each group with the precision that its own scores need."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from torch_mmd_losses.distances import (
    CLEAR,
    FLOAT32_LIMIT,
    FLOAT32_ROOM,
    FLOAT32_SQUARES,
    FLOAT64_LIMIT,
    NEAR_IN_FLOAT64,
    SINGULAR,
    differences_squared,
)
from torch_mmd_losses.kernels.contract import LARGEST, SMALLEST, Conditioning
from torch_mmd_losses.pairs.near_pairs import StackedNearPairs, near_places
from torch_mmd_losses.precision import total_dtype

Numbers = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class StackedDistances(NamedTuple):
    """Stacked scores of some groups, and their squared distances.

    Attributes:
        groups: indices of the groups `(g,)`; None stands for all groups.
        kept: places in `groups` of the groups for which these distances are precise; None means all of them.
        stack: real and fake scores `(g, m + n, d)`, around the centre of each group unless `far`.
        sq_dist: squared distances `(g, m + n, m + n)`, in units of the squared scale of each group.
        wide: whether the distances are in float32, but the kernel values should be in float64.
        far: whether even float64 cannot expand the distances, so that gradients should be sums of differences too.
        near_pairs: pairs whose distances, and displacements, are computed from their differences.
    """

    groups: Tensor | None
    kept: Tensor | None
    stack: Tensor
    sq_dist: Tensor
    wide: bool
    far: bool
    near_pairs: StackedNearPairs | None = None


class Demands(NamedTuple):
    """The precision that the kernel and the scale of each group need in its distances: one host number for each group.

    Attributes:
        unit: square of the scale.
        steepness: see :class:`Conditioning`, for distances without the scale.
        elasticity: the same for all groups.
        is_moderate: see :class:`Conditioning`.
        half_peak: see :class:`Conditioning`, for distances without the scale.
    """

    unit: Numbers
    steepness: Numbers
    elasticity: float
    is_moderate: Mask
    half_peak: Numbers

    @classmethod
    def of(cls, groups: int, conditioning: Conditioning, scale: Tensor | None) -> Demands:
        """Return the demands of all groups."""
        scales = np.ones(groups) if scale is None else scale.detach().double().numpy()
        moderate = conditioning.is_moderate & (scales >= SMALLEST) & (scales <= LARGEST)
        unit = np.square(scales)
        steepness, elasticity, _, half_peak = conditioning
        return cls(unit, steepness / unit, elasticity, moderate, half_peak * unit)

    def chosen(self, groups: npt.NDArray[np.intp]) -> Demands:
        """Return the demands of some groups."""
        return Demands(
            self.unit[groups], self.steepness[groups], self.elasticity, self.is_moderate[groups], self.half_peak[groups]
        )

    def precise_in_float32(self, largest: Numbers, sq_dist: Tensor) -> Mask:
        """Return the groups for which distances expanded in float32 are precise enough.

        Args:
            largest: the largest squared norm in each group.
            sq_dist: the distances.
        """
        enough = self.is_moderate & (largest * self.steepness <= FLOAT32_LIMIT)
        bound = CLEAR * self.elasticity * float(np.finfo(np.float32).eps)
        if enough.all() or bound >= 4:  # no distance is above four times the largest squared norm
            return enough
        smallest, highest = FLOAT32_SQUARES
        room = np.isposinf(self.steepness) | (largest * self.steepness <= FLOAT32_ROOM)
        close = sq_dist <= torch.from_numpy(bound * largest).to(sq_dist.dtype).view(-1, 1, 1)
        clear = (close.sum((1, 2)) <= sq_dist.shape[1]).numpy()  # a score is at distance zero from itself
        return enough | (self.is_moderate & room & (smallest <= largest) & (largest <= highest) & clear)

    def precise_in_float64(self, largest: Numbers) -> Mask:
        """Return the groups that may be expanded in float64, including those with scores that are not finite."""
        product = largest * np.where(np.isposinf(self.steepness), SINGULAR / self.unit, self.steepness)
        return np.logical_not((product > FLOAT64_LIMIT) & (product < math.inf))

    def near_in_float64(self, largest: Numbers, dtype: torch.dtype) -> Numbers:
        """Return the squared distance below which an expansion lacks digits for infinite steepness, or zero.

        See :func:`torch_mmd_losses.distances.near_in_float64`.
        """
        return np.where(np.isfinite(largest) & self.precise_in_float64(largest), NEAR_IN_FLOAT64[dtype] * largest, 0.0)

    def are_wide(self, largest: Numbers) -> Mask:
        """Return the groups for which the kernel is wide, see :meth:`Conditioning.is_wide`."""
        return (4 * largest < self.half_peak) & (self.half_peak < math.inf)


def stacked_distances(
    real: Tensor, fake: Tensor, scale: Tensor | None, conditioning: Conditioning
) -> Iterator[StackedDistances]:
    """Yield the distances of all groups, with groups of equal demands together.

    On a CPU, the host reads how far the scores of each group are from their centre and decides for each group
    separately: a group with far scores does not change the digits of the others. On other devices reading would need a
    synchronisation, so everything is expanded in :func:`total_dtype`.

    Args:
        real: scores `(g, m, d)`.
        fake: scores `(g, n, d)`.
        scale: unit of the distances of each group `(g,)`, or None.
        conditioning: of the kernel.
    """
    if not real.is_cpu:
        stack = _centred(torch.cat([real, fake], 1).to(total_dtype(real.device)))
        yield StackedDistances(None, None, stack, _in_units(_expanded(stack @ stack.mT), scale), wide=False, far=False)
        return
    with np.errstate(all="ignore"):
        demands = Demands.of(len(real), conditioning, scale)
        remaining = np.arange(len(real))
        if real.dtype == torch.float32 and demands.is_moderate.any():
            stack = _centred(torch.cat([real, fake], 1))
            gram = stack @ stack.mT
            largest = _largest(gram)
            sq_dist = _expanded(gram)
            precise = demands.precise_in_float32(largest, sq_dist)
            yield from _by_width(precise, demands.are_wide(largest), stack, _in_units(sq_dist, scale))
            remaining = np.flatnonzero(~precise)
            if not remaining.size:
                return
            demands = demands.chosen(remaining)
        groups = torch.from_numpy(remaining)
        rows = torch.cat([real[groups], fake[groups]], 1).double()
        stack = _centred(rows.clone())
        gram = stack @ stack.mT
        largest = _largest(gram)
        precise = demands.precise_in_float64(largest)
        is_singular = conditioning.steepness == math.inf
        sq_dist = _expanded(gram, clamped=not is_singular)  # distances below zero are near
        near_pairs = None
        if is_singular:
            near_pairs = _repaired(sq_dist, rows, demands.near_in_float64(largest, real.dtype))
        _in_units(sq_dist, None if scale is None else scale[groups])
        if precise.any():
            kept = _kept(precise)
            yield StackedDistances(groups, kept, stack, sq_dist, wide=False, far=False, near_pairs=near_pairs)
        far = torch.from_numpy(np.flatnonzero(~precise))
        if len(far):
            rows, groups = rows[far], groups[far]  # not around the centre, which rounds too
            sq_dist = _in_units(differences_squared(rows, rows), None if scale is None else scale[groups])
            yield StackedDistances(groups, None, rows, sq_dist, wide=False, far=True)


def _by_width(precise: Mask, wide: Mask, stack: Tensor, sq_dist: Tensor) -> Iterator[StackedDistances]:
    """Yield the distances once for groups with a wide kernel and once for all others, if there are any.

    Both contain all groups, since the last digits of a result may depend on its place in a tensor. The last digits of a
    group then do not depend on the needs of the others.
    """
    kinds = [(is_wide, precise & (wide == is_wide)) for is_wide in (True, False)]
    kinds = [(is_wide, chosen) for is_wide, chosen in kinds if chosen.any()]
    for i, (is_wide, chosen) in enumerate(kinds):
        own = sq_dist if i + 1 == len(kinds) else sq_dist.clone()  # the kernel overwrites it
        yield StackedDistances(None, _kept(chosen), stack, own, wide=is_wide, far=False)


def _kept(groups: Mask) -> Tensor | None:
    """Return the places of some groups, or None if these are all."""
    return None if groups.all() else torch.from_numpy(np.flatnonzero(groups))


def _repaired(sq_dist: Tensor, rows: Tensor, near: Numbers) -> StackedNearPairs | None:
    """Compute the distances of near pairs anew, in place, and return these pairs.

    Args:
        sq_dist: `(g, m + n, m + n)`.
        rows: real and fake scores `(g, m + n, d)` in float64.
        near: squared distance below which a pair is near, one for each group.
    """
    places = near_places(sq_dist, torch.from_numpy(near).view(-1, 1, 1))
    if places is None:
        return None
    pairs = StackedNearPairs(rows, places)
    pairs.repair_(sq_dist)
    return pairs


def _centred(stack: Tensor) -> Tensor:
    """Move the centre of each group to zero, in place."""
    return stack.sub_(stack.mean(1, keepdim=True))


def _expanded(gram: Tensor, *, clamped: bool = True) -> Tensor:
    """Return the squared distances, given the inner products of scores around their centre.

    Those that rounding made negative are set to zero if `clamped`.
    """
    squares = gram.diagonal(dim1=1, dim2=2)  # from the product, so that equal scores are at distance zero
    sq_dist = torch.sub(squares.unsqueeze(1), gram, alpha=2).add_(squares.unsqueeze(2))
    return sq_dist.clamp_min_(0) if clamped else sq_dist


def _largest(gram: Tensor) -> Numbers:
    """Return the largest squared norm in each group."""
    largest: Numbers = gram.diagonal(dim1=1, dim2=2).amax(1).numpy().astype(np.float64)
    return largest


def _in_units(sq_dist: Tensor, scale: Tensor | None) -> Tensor:
    """Divide squared distances by the squared scale of each group, in place."""
    if scale is None:
        return sq_dist
    factor = scale.detach().to(total_dtype(scale.device)).square().reciprocal()
    return sq_dist.mul_(factor.to(sq_dist.dtype).view(-1, 1, 1))
