"""Radial kernels as the fused passes see them: value and slope at given squared distances, within given bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from torch_mmd_losses._kernel import Kernel

Limits = tuple[float, float]
"""The smallest and the largest squared distance that a kernel sees."""

UNBOUNDED: Limits = (0.0, math.inf)


class Leaf(NamedTuple):
    """A kernel that is neither a sum nor a multiple, with its factor in the kernel that it is part of."""

    factor: float
    kernel: Kernel


class Mapped(NamedTuple):
    """Kernel values, and their derivative with respect to the squared distance as `rate * slope`.

    For a Gaussian the slope is a multiple of the value: then `slope` is `value` itself, and nobody computes it.
    """

    value: Tensor
    slope: Tensor
    rate: float


def evaluate(
    leaves: Sequence[Leaf], sq_dist: Tensor, limits: Sequence[tuple[Tensor, Tensor] | Limits], *, keep: bool
) -> Mapped:
    """Return the sum of the kernels at `sq_dist`, which is overwritten unless it is to be kept.

    `limits` holds, for each kernel, numbers or tensors that broadcast to `sq_dist`.
    """
    last = len(leaves) - 1
    parts = [_part(leaf, sq_dist, limits[i], keep=keep or i < last) for i, leaf in enumerate(leaves)]
    if not last:
        return parts[0]
    slope = parts[0].slope * parts[0].rate
    value = parts[0].value
    for more in parts[1:]:
        slope.add_(more.slope, alpha=more.rate)
        value.add_(more.value)
    return Mapped(value, slope, 1.0)


def _part(leaf: Leaf, sq_dist: Tensor, limits: tuple[Tensor, Tensor] | Limits, *, keep: bool) -> Mapped:
    if not isinstance(limits[0], Tensor) and limits == UNBOUNDED:
        mapped = leaf.kernel._map(sq_dist.clone() if keep else sq_dist)
    else:
        seen = sq_dist.clamp(*limits)
        outside = seen != sq_dist  # the whole slope passes at a bound, as through clamp
        mapped = leaf.kernel._map(seen)
        mapped = mapped._replace(slope=mapped.slope.masked_fill(outside, 0))
    if leaf.factor == 1:
        return mapped
    return mapped._replace(value=mapped.value * leaf.factor, rate=mapped.rate * leaf.factor)
