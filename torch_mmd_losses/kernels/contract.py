"""The contract between kernels and the passes over pairs of samples.

A kernel gives its summands to the passes (:meth:`Kernel._summands`), each with its factor and its function:

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

from torch_mmd_losses.distances import Pairs, Sample
from torch_mmd_losses.hand_written_gradients import where_transforms_record
from torch_mmd_losses.types import Bounds, Group

Limits = tuple[float, float]
"""The smallest and the largest squared distance that a bounded kernel distinguishes."""

UNBOUNDED: Limits = (0.0, math.inf)


SMALLEST, LARGEST = 2.0**-30, 2.0**30
"""Range of numbers whose squares, and distances in multiples of them, leave room in float32 on both sides."""


def is_moderate(*numbers: float) -> bool:
    """Return whether numbers > 0 and their squares leave room in float32 for their products with other factors."""
    return all([SMALLEST <= number <= LARGEST for number in numbers])  # noqa: C419 (faster)


class Conditioning(NamedTuple):
    """The relative change of a value `f(x)` and of its slope by an error of the squared distance `x`.

    Attributes:
        steepness: the change for an error of one: `-f'(0) / f(0)`, infinite for a function with a root at zero.
        elasticity: the largest change for an error as large as `x`: the maximum of `|x f'(x) / f(x)|`.
        is_moderate: whether the constants and factors of `f` leave room for squared distances and sums in float32. If
            not, everything has to be computed in float64.
        half_peak: a squared distance up to which `f` is at least half its peak `f(0)`: zero if that is not known, and
            infinite for a function with a peak of zero.
    """

    steepness: float = math.inf
    elasticity: float = math.inf
    is_moderate: bool = True
    half_peak: float = 0.0

    def is_wide(self, largest: float) -> bool:
        """Return whether the values of all pairs are known to be at least half the peak, if the peak is not zero.

        Their differences lose digits in float32. Kernel values and their sums should then be in float64. Distances in
        float32 are precise enough.

        Args:
            largest: the largest squared norm of the scores around their centre; infinite if the host does not know it.
        """
        return 4 * largest < self.half_peak < math.inf


def log_convex(steepness: float, elasticity: float = math.inf, is_moderate: bool = True) -> Conditioning:
    """Return the conditioning of a function that nowhere falls faster, relative to its value, than at zero."""
    return Conditioning(steepness, elasticity, is_moderate, math.log(2) / steepness if steepness else math.inf)


class ValueAndSlope(NamedTuple):
    """Kernel values, and their derivatives `rate * slope` with respect to the squared distance.

    The derivative of a Gaussian is a multiple of its value, so its `slope` is `value` itself and costs nothing.
    """

    value: Tensor
    slope: Tensor
    rate: float


class ValueSlopeAndSteps(NamedTuple):
    """Kernel values with their slope, and the derivatives of their sum.

    Attributes:
        mapped: values and slopes.
        steps: the derivatives with respect to the logarithms of the hyper-parameters, in their order.
    """

    mapped: ValueAndSlope
    steps: Sequence[Tensor]


class Profile(NamedTuple):
    """A kernel of the distance, `k(a, b) = f(|a - b|^2)`."""

    value: Callable[[Tensor], Tensor]
    """Returns `f` at squared distances >= 0 of any shape, differentiably."""
    value_and_slope: Callable[[Tensor], ValueAndSlope]
    """Returns `f` and its derivative without a graph. It may overwrite its argument."""
    limits: Callable[[Group, Bounds], Limits]
    """Returns the limits to which the squared distances of a group of pairs are clamped before `f` is applied."""
    conditioning: Callable[[Tensor], Conditioning]
    """Returns the effect of errors of squared distances on the values, for scores like the given ones."""
    exponent: float | None = None
    """The number `c` if `f(x) = 2 ** (c * x)`. Distances can then be computed in multiples of `c` from the start."""
    by_hand: bool = False
    """Whether the slope is written by hand. If so, `f` has no trained parameters and accepts any dtype."""
    in_float64: Callable[[Tensor], ValueAndSlope] | None = None
    """Returns `f` in float64 with its derivative, given distances in float32, which it may overwrite.

    A kernel with a root has this function, because roots in float64 take four times as long.
    """
    overwriting: Callable[[Tensor], Tensor] | None = None
    """Returns `f` without a graph, in fewer passes than `value`. It may overwrite its argument."""
    steps: Callable[[Tensor], ValueSlopeAndSteps] | None = None
    """Returns `f` with its derivatives, also with respect to trained hyper-parameters, without a graph."""


class ColumnRange(NamedTuple):
    """Some columns of scores, times a number."""

    start: int
    """The first column."""
    stop: int | None
    """The column after the last one; None stands for the end."""
    scale: float = 1.0


class OfColumns(NamedTuple):
    """A kernel of some columns of the scores."""

    ranges: tuple[ColumnRange, ...]
    """The columns, concatenated in this order."""
    summands: Sequence[Any]
    """The kernel of these columns, a sum of summands."""


class GramFunction(NamedTuple):
    """A kernel that is not a function of the distance."""

    values: Callable[[Sample, Sample], Tensor]
    """Returns the Gram matrix `(m, n)` of two samples, in the dtype of the scores or in :func:`total_dtype`."""
    pair_sum: Callable[[Sample, Sample, int | None], Tensor] | None = None
    """Returns the sum over all pairs `(i, j)` except those with `j = i + shift` (None: all pairs), in closed form."""
    by_hand: bool = False
    """Whether the function belongs to the library, and so has no trained parameters."""
    values_of_pairs: Callable[[Pairs], Tensor] | None = None
    """Returns the same values for :class:`Pairs`, which identify the pairs of a score and itself."""
    of_columns: OfColumns | None = None
    """The function as a kernel of columns. Losses then evaluate that kernel at those columns of the scores."""
    by_groups: bool = False
    """Whether the functions also take the scores of several groups, `(g, m, d)`, and return `(g, m, n)`."""


def checked_values(name: str, values: object, shape: Sequence[int], device: torch.device) -> Tensor:
    """Return the values of the kernel class `name`, or raise if they are not one real number for each pair."""
    if not isinstance(values, Tensor):
        raise TypeError(f"{name}: expected a tensor of kernel values, got {_described(values)}")
    if not values.is_floating_point():
        raise TypeError(f"{name}: expected kernel values of a floating-point dtype, got {values.dtype}")
    if values.shape != tuple(shape):
        raise ValueError(
            f"{name}: expected kernel values of shape {tuple(shape)}, one for each pair, got {tuple(values.shape)}"
        )
    if values.device != device:
        raise ValueError(f"{name}: expected kernel values on the device of the scores, {device}, got {values.device}")
    return values


def _described(value: object) -> str:
    return "None (is a return statement missing?)" if value is None else f"an object of type {type(value).__name__}"


def value_and_slope_by_autograd(value: Callable[[Tensor], Tensor], sq_dist: Tensor) -> ValueAndSlope:
    """Return the values of a function of squared distances, and its slopes from autograd."""
    if torch.is_inference_mode_enabled():
        values, slope = _in_inference_mode(value, sq_dist)
    else:
        values, slope = _recorded(value, sq_dist)
    # The passes write into both, and cannot write into expanded tensors, such as the values of a constant function.
    return ValueAndSlope(values.to(sq_dist.dtype).contiguous(), slope.contiguous(), 1.0)


def _recorded(value: Callable[[Tensor], Tensor], sq_dist: Tensor) -> tuple[Tensor, Tensor]:
    """Return the values, without a graph, and the slopes."""
    with torch.enable_grad():
        points = sq_dist.detach().requires_grad_()
        values = value(points)
        # A piecewise constant function has no graph, or only that of parameters. Its slope is zero wherever it exists.
        slope = torch.zeros_like(points)
        if values.requires_grad:
            (slope,) = torch.autograd.grad(values.sum(), points, materialize_grads=True)
    return values.detach(), slope


def _in_inference_mode(value: Callable[[Tensor], Tensor], sq_dist: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same in inference mode, where autograd records nothing, but transforms do."""

    def total_and_values(x: Tensor) -> tuple[Tensor, Tensor]:
        values = value(x)
        return values.sum(), values

    try:
        slope, values = where_transforms_record(torch.func.grad(total_and_values, has_aux=True))(sq_dist)
    except RuntimeError:  # of functions without setup_context, which transforms refuse
        with torch.inference_mode(False):
            return _recorded(value, sq_dist.clone())
    return values, slope


def conditioning_by_autograd(value: Callable[[Tensor], Tensor], like: Tensor) -> Conditioning:
    """Return the conditioning of a function of squared distances, as far as it follows from the slope at zero.

    For anything other than a function, the result is the worst conditioning. The error is raised when it is evaluated
    at all pairs.
    """
    with torch.enable_grad():
        zero = like.new_zeros(1, 1).requires_grad_()
        found: object = value(zero.clone())
        try:
            values = checked_values("", found, zero.shape, zero.device)
        except (TypeError, ValueError):
            return Conditioning()
        slope = 0.0
        if torch.is_inference_mode_enabled():
            slope = float(_in_inference_mode(value, zero.detach())[1])
        elif values.requires_grad:  # they need not depend on the distance, if the kernel has trained parameters
            slope = float(torch.autograd.grad(values, zero, materialize_grads=True)[0])
    peak = float(values.detach())
    steepness = -slope / peak if peak else math.inf
    return Conditioning(abs(steepness) if math.isfinite(steepness) else math.inf)


Method = TypeVar("Method", bound=Callable[..., Tensor])


class HandWritten(NamedTuple):
    """The functions that :func:`with_slope` attaches to `from_sq_dist`; their first argument is the kernel."""

    value_and_slope: Callable[[Any, Tensor], ValueAndSlope]
    conditioning: Callable[[Any, Tensor], Conditioning]
    exponent: Callable[[Any], float] | None
    in_float64: Callable[[Any, Tensor], ValueAndSlope] | None
    overwriting: Callable[[Any, Tensor], Tensor] | None
    steps: Callable[[Any, Tensor], ValueSlopeAndSteps] | None


def with_slope(
    value_and_slope: Callable[[Any, Tensor], ValueAndSlope],
    *,
    conditioning: Callable[[Any, Tensor], Conditioning],
    exponent: Callable[[Any], float] | None = None,
    in_float64: Callable[[Any, Tensor], ValueAndSlope] | None = None,
    overwriting: Callable[[Any, Tensor], Tensor] | None = None,
    steps: Callable[[Any, Tensor], ValueSlopeAndSteps] | None = None,
) -> Callable[[Method], Method]:
    """Attach a hand-written slope to a `from_sq_dist` method.

    The slope belongs to the method, not to the class: a subclass that overrides `from_sq_dist` does not inherit the
    slope of the old definition.

    Args:
        value_and_slope: see :attr:`Profile.value_and_slope`.
        conditioning: see :attr:`Profile.conditioning`.
        exponent: see :attr:`Profile.exponent`.
        in_float64: see :attr:`Profile.in_float64`.
        overwriting: see :attr:`Profile.overwriting`.
        steps: see :attr:`Profile.steps`.
    """
    # PyTorch 2.6 compiles attributes of functions if they are plain tuples.
    functions = (value_and_slope, conditioning, exponent, in_float64, overwriting, steps)

    def attach(method: Method) -> Method:
        method.hand_written = functions  # type: ignore[attr-defined]
        return method

    return attach


def hand_written(method: Callable[..., Tensor]) -> HandWritten | None:
    """Return the functions that :func:`with_slope` attached to a method, or None."""
    functions = getattr(method, "hand_written", None)
    return None if functions is None else HandWritten(*functions)
