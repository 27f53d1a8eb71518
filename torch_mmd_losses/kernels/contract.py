"""The contract between kernels and the passes over pairs of samples.

A kernel hands the passes its summands (:meth:`Kernel._summands`), each with its factor and its function:

- A :class:`Profile` is a function of the squared distance: `value`, `value_and_slope` and, for bounded kernels,
  `limits`. A kernel that defines `from_sq_dist` has a profile. Its slope comes from autograd, unless
  :func:`with_slope` attaches a hand-written slope to `from_sq_dist`.
- A :class:`GramFunction` is any other function of two samples: `values`, and `pair_sum` if sums over pairs have a
  closed form. A kernel that defines `forward` has a Gram function.

A kernel needs nothing else, so a new kernel of the distance is one class with one decorated method.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from torch_mmd_losses.distances import Sample
from torch_mmd_losses.types import Bounds, Group

Limits = tuple[float, float]
"""The smallest and the largest squared distance that a bounded kernel distinguishes."""

UNBOUNDED: Limits = (0.0, math.inf)


class Conditioning(NamedTuple):
    """How much an error of the squared distance `x` changes a value `f(x)` and its slope, relative to themselves.

    Attributes:
        steepness: by how much for an error of one: `-f'(0) / f(0)`, infinite for a function with a root at zero.
        elasticity: by how much at most for an error of `x` itself: the largest `|x f'(x) / f(x)|`.
    """

    steepness: float = math.inf
    elasticity: float = math.inf


class ValueAndSlope(NamedTuple):
    """Kernel values, and their derivatives `rate * slope` with respect to the squared distance.

    The derivative of a Gaussian is a multiple of its value, so its `slope` is `value` itself and costs nothing.
    """

    value: Tensor
    slope: Tensor
    rate: float


class Profile(NamedTuple):
    """A kernel of the distance, `k(a, b) = f(|a - b|^2)`."""

    value: Callable[[Tensor], Tensor]
    """Returns `f` at squared distances >= 0 of any shape, differentiably."""
    value_and_slope: Callable[[Tensor], ValueAndSlope]
    """Returns `f` and its derivative without a graph. It may overwrite its argument."""
    limits: Callable[[Group, Bounds], Limits]
    """Returns the limits to which the squared distances of a group of pairs are clamped before `f` is applied."""
    conditioning: Callable[[Tensor], Conditioning]
    """Returns how much errors of squared distances change the values, for scores like the given ones."""
    exponent: float | None = None
    """The number `c` if `f(x) = 2 ** (c * x)`. Distances can then be computed in multiples of `c` from the start."""
    by_hand: bool = False
    """Whether the slope is written by hand. If so, `f` has no trained parameters and accepts any dtype."""


class GramFunction(NamedTuple):
    """A kernel that is not a function of the distance."""

    values: Callable[[Sample, Sample], Tensor]
    """Returns the Gram matrix `(m, n)` of two samples, in the dtype of the scores or in :func:`total_dtype`."""
    pair_sum: Callable[[Sample, Sample, int | None], Tensor] | None = None
    """Returns the sum over all pairs `(i, j)` except those with `j = i + shift` (None: all pairs), in closed form."""
    by_hand: bool = False
    """Whether the function belongs to the library, and so has no trained parameters."""


def checked_values(name: str, values: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the values of the kernel class `name`, or raise if their shape is not that of one value per pair."""
    if values.shape != tuple(shape):
        raise ValueError(
            f"{name}: expected kernel values of shape {tuple(shape)}, one for each pair, got {tuple(values.shape)}"
        )
    return values


def value_and_slope_by_autograd(value: Callable[[Tensor], Tensor], sq_dist: Tensor) -> ValueAndSlope:
    """Return the values of a function of squared distances, and its slopes from autograd."""
    with torch.enable_grad():
        points = sq_dist.detach().requires_grad_()
        values = value(points).to(points.dtype)
        # A piecewise constant function has no graph; its slope is zero wherever it exists.
        slope = torch.autograd.grad(values.sum(), points)[0] if values.requires_grad else torch.zeros_like(points)
    return ValueAndSlope(values.detach(), slope, 1.0)


def conditioning_by_autograd(value: Callable[[Tensor], Tensor], like: Tensor) -> Conditioning:
    """Return the conditioning of a function of squared distances, as far as its slope at zero tells."""
    values, slope, rate = value_and_slope_by_autograd(value, like.new_zeros(1, 1))
    peak = float(values.sum())
    steepness = -rate * float(slope) / peak if peak else math.inf
    return Conditioning(abs(steepness) if math.isfinite(steepness) else math.inf)


Method = TypeVar("Method", bound=Callable[..., Tensor])


class HandWritten(NamedTuple):
    """The functions that :func:`with_slope` attaches to `from_sq_dist`; their first argument is the kernel."""

    value_and_slope: Callable[[Any, Tensor], ValueAndSlope]
    conditioning: Callable[[Any, Tensor], Conditioning]
    exponent: Callable[[Any], float] | None


def with_slope(
    value_and_slope: Callable[[Any, Tensor], ValueAndSlope],
    *,
    conditioning: Callable[[Any, Tensor], Conditioning],
    exponent: Callable[[Any], float] | None = None,
) -> Callable[[Method], Method]:
    """Attach a hand-written slope to a `from_sq_dist` method.

    The slope belongs to the method, not to the class: a subclass that overrides `from_sq_dist` does not inherit the
    slope of the old definition.

    Args:
        value_and_slope: see :attr:`Profile.value_and_slope`.
        conditioning: see :attr:`Profile.conditioning`.
        exponent: see :attr:`Profile.exponent`.
    """

    def attach(method: Method) -> Method:
        method.hand_written = HandWritten(value_and_slope, conditioning, exponent)  # type: ignore[attr-defined]
        return method

    return attach


def hand_written(method: Callable[..., Tensor]) -> HandWritten | None:
    """Return the functions that :func:`with_slope` attached to a method, or None."""
    return getattr(method, "hand_written", None)
