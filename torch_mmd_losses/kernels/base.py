"""What a kernel is: the base class, and sums and multiples of kernels.

A kernel is a map of the squared distance (override :meth:`Kernel.from_sq_dist`) or any other function of two sets of
scores (override :meth:`Kernel.forward`). The estimators only ask for means over pairs, and a mean is linear in the
kernel: sums and multiples of kernels are therefore sums and multiples of means, and share the distances.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torch_mmd_losses import checks
from torch_mmd_losses.distances import Pairs, Sample
from torch_mmd_losses.kernels.summands import UNBOUNDED, Leaf, Limits, Mapped
from torch_mmd_losses.types import Bounds, Group

SATURATED = 0.01
"""A pair counts as saturated when its kernel value is this close, relative to its peak, to zero or to the peak."""


class Kernel(nn.Module):
    r"""Base class of all kernels.

    A subclass with one small method is a kernel: a function of the squared distances,

    .. math:: k(a, b) = f(\lVert a - b \rVert^2),

    or, for a kernel that is not a function of the distance, :meth:`forward` itself. Everything else follows:
    estimators, losses, gradients, sums with other kernels and multiples. A value may depend on its own pair of scores
    only, for the library evaluates kernels on parts of the samples: a bandwidth that is taken from the scores, such as
    their median distance, has to be found before and handed to the kernel as a number or a tensor.

    Hyper-parameters of the library's kernels are Python floats, exact in every precision: `.half()` does not round
    them, they need no device, and `state_dict` carries them as float64 extra state. What is assigned to them is checked
    as by `__init__`; a tensor is refused, since only kernels of your own train their parameters.

    Example:
        >>> class InverseMultiquadric(Kernel):
        ...     def from_sq_dist(self, sq_dist):
        ...         return (1 + sq_dist).rsqrt()
        >>> class Cubic(Kernel):  # the kernel of KID
        ...     def forward(self, a, b):
        ...         return (a @ b.T / a.shape[1] + 1) ** 3
        >>> scores = torch.tensor([[0.0], [1.0]])
        >>> (InverseMultiquadric() + 0.5 * Cubic())(scores, scores)
        tensor([[1.5000, 1.2071],
                [1.2071, 5.0000]])
    """

    _hyperparameters: tuple[str, ...] = ()

    def __setattr__(self, name: str, value: object) -> None:
        if name in self._hyperparameters and name in self.__dict__:
            # As `__init__` has it; a tensor, which was to be trained perhaps, would get no gradient.
            value = self._converted(name, value)
            self._check(dict(self._values()) | {name: value if isinstance(value, tuple) else (value,)})
        super().__setattr__(name, value)  # type: ignore[arg-type]

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "from_sq_dist" in cls.__dict__:  # the slope of a base class is that of its own map
            for name in {"_map", "_exponent"} - cls.__dict__.keys():
                setattr(cls, name, getattr(Kernel, name))

    def from_sq_dist(self, sq_dist: Tensor) -> Tensor:
        """Map squared distances, of any shape and never negative, to kernel values of the same shape.

        The map has to be differentiable at zero (coincident samples): write `sqrt` only of what stays above it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define from_sq_dist(sq_dist) or forward(a, b)")

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the Gram matrix of two sets of scores.

        Args:
            a: scores `(m, d)`; `(m,)` and `(m, ...)` are flattened from dim 1.
            b: scores `(n, d)`, likewise, of the same dtype and device.

        Returns:
            `(m, n)`, float64 for float64 scores and float32 for all others, also under autocast.

        Raises:
            TypeError: if a score set is no tensor.
            ValueError: if scores are empty or not floating-point, or differ in dimension, dtype or device.
        """
        matrix_a, matrix_b = checks.same_space("a", a, "b", b)
        left = Sample(matrix_a)
        right = left if a is b else Sample(matrix_b)
        with checks.full_precision(matrix_a.device):
            gram = self._evaluate(Pairs(left, right, "cross", distinct=False, same=a is b))
            return gram.to(matrix_a.dtype)

    def __add__(self, other: Kernel) -> Kernel:
        """Return the kernel `k(a, b) + other(a, b)`."""
        return _Sum(self, other) if isinstance(other, Kernel) else NotImplemented

    def __mul__(self, factor: float) -> Kernel:
        """Return the kernel `factor * k(a, b)`, `factor > 0`."""
        return _Multiple(self, factor)

    __rmul__ = __mul__

    # What the estimators ask of a kernel: defined for every subclass by one of the two methods above.

    @property
    def _radial(self) -> bool:
        """Whether the kernel is a function of the distance: `forward` is this class's own."""
        return not self._own_forward

    @property
    def _has_slope(self) -> bool:
        """Whether the kernel is a function of the distance whose derivative is written by hand."""
        return type(self)._map is not Kernel._map and self._radial

    @property
    def _closed_form(self) -> bool:
        """Whether sums over pairs take no Gram matrix."""
        return False

    @property
    def _own_forward(self) -> bool:
        """Whether a subclass defines the kernel by :meth:`forward`: then nothing else that it has from a base holds."""
        return type(self).forward is not Kernel.forward

    def _gram(self, pairs: Pairs, bounds: Bounds = "none") -> Tensor:
        """Return the Gram matrix, in the dtype of the scores or in :func:`total_dtype`."""
        if self._own_forward:
            return self._checked(self.forward(pairs.a.scores, pairs.b.scores), pairs.shape)
        return self._evaluate(pairs, bounds)

    def _evaluate(self, pairs: Pairs, bounds: Bounds = "none") -> Tensor:
        """Return the Gram matrix of a kernel without a forward of its own, which may call that of this class."""
        return self._checked(self.from_sq_dist(pairs.sq_dist), pairs.shape)

    def _checked(self, values: Tensor, shape: Sequence[int]) -> Tensor:
        if values.shape != tuple(shape):
            raise ValueError(
                f"{type(self).__name__}: expected kernel values of shape {tuple(shape)}, one for each pair, "
                f"got {tuple(values.shape)}"
            )
        return values

    def _total(self, pairs: Pairs, bounds: Bounds = "none") -> Tensor:
        """Return the sum over the pairs, a scalar in :func:`total_dtype`."""
        return pairs.total(self._gram(pairs, bounds))

    def _leaves(self) -> list[Leaf]:
        """Return the kernels that this one is the sum of, none of them a sum or a multiple."""
        return [Leaf(1.0, self)]

    def _limits(self, group: Group, bounds: Bounds) -> Limits:
        """Return the limits to which the kernel clamps the squared distance of a pair of this group."""
        return UNBOUNDED

    def _trained(self, like: Tensor) -> bool:
        """Whether values depend on a tensor that wants a gradient, beside the scores, which are like `like`."""
        if self._has_slope:
            return False
        with torch.enable_grad():
            if self._radial:
                return self.from_sq_dist(like.new_ones(1, 1)).requires_grad
            sample = like.new_ones(1, like.shape[1])
            return self.forward(sample, sample).requires_grad

    def _map(self, sq_dist: Tensor) -> Mapped:
        """Return values and slopes of a radial kernel at squared distances >= 0, which may be overwritten."""
        with torch.enable_grad():
            leaf = sq_dist.detach().requires_grad_()
            value = self._checked(self.from_sq_dist(leaf), leaf.shape).to(leaf.dtype)
            # A map of steps has no derivative, which is zero where it has one.
            slope = torch.autograd.grad(value.sum(), leaf)[0] if value.requires_grad else torch.zeros_like(leaf)
        return Mapped(value.detach(), slope, 1.0)

    @property
    def _exponent(self) -> float | None:
        """The number `c` for which the kernel is `2 ** (c * sq_dist)`, if there is one."""
        return None

    def _saturated(self, pairs: Pairs, bounds: Bounds) -> Tensor:
        """Return a mask `(m, n)` of the pairs that hardly pull or push."""
        if not self._radial:
            return torch.zeros(pairs.shape, dtype=torch.bool, device=pairs.a.scores.device)
        peak = self.from_sq_dist(torch.zeros_like(pairs.sq_dist))
        share = self.from_sq_dist(pairs.sq_dist) / peak
        # A kernel that is zero at distance zero, as the energy kernel, has no peak and never saturates.
        return ((share < SATURATED) | (share > 1 - SATURATED)) & (peak > 0)

    # Hyper-parameters as state.

    def _values(self) -> list[tuple[str, tuple[float, ...]]]:
        pairs = ((name, getattr(self, name)) for name in self._hyperparameters)
        return [(name, value if isinstance(value, tuple) else (value,)) for name, value in pairs]

    def get_extra_state(self) -> Tensor:
        """Return a checksum of the hyper-parameters' names and their numbers, in float64, for `state_dict`."""
        return torch.tensor([self._checksum(), *(x for _, xs in self._values() for x in xs)], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over the hyper-parameters of :meth:`get_extra_state`, for `load_state_dict`.

        Raises:
            ValueError: if the state belongs to a kernel with other or differently many hyper-parameters, or one of them
                is out of range.
        """
        wanted = self._values()
        checksum, *numbers = state.tolist()
        if checksum != self._checksum() or len(numbers) != sum(len(values) for _, values in wanted):
            raise ValueError(
                f"state of {type(self).__name__}: expected {[name for name, _ in wanted]} with "
                f"{[len(values) for _, values in wanted]} numbers, got {len(numbers)} numbers or another kernel's state"
            )
        remaining = iter(numbers)
        loaded = {name: tuple(checks.positive_number(name, next(remaining)) for _ in old) for name, old in wanted}
        self._check(loaded)
        for name, new in loaded.items():
            super().__setattr__(name, new if isinstance(getattr(self, name), tuple) else new[0])  # type: ignore[arg-type]

    def _checksum(self) -> float:
        return float(zlib.crc32(",".join(self._hyperparameters).encode()))

    def _converted(self, name: str, value: object) -> float | tuple[float, ...]:
        """Return a new hyper-parameter if it is of the kind of the one before."""
        several = isinstance(getattr(self, name), tuple)
        return checks.positive_numbers(name, value) if several else checks.positive_number(name, value)

    def _check(self, values: dict[str, tuple[float, ...]]) -> None:
        """Raise if hyper-parameters do not go together."""

    def extra_repr(self) -> str:
        """Return the hyper-parameters, for `repr`."""
        return ", ".join(f"{name}={getattr(self, name)}" for name in self._hyperparameters)


class _Sum(Kernel):
    def __init__(self, *parts: Kernel) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def _parts(self) -> list[Kernel]:
        return [part for part in self.parts if isinstance(part, Kernel)]

    def _leaves(self) -> list[Leaf]:
        return [leaf for part in self._parts() for leaf in part._leaves()]

    def _evaluate(self, pairs: Pairs, bounds: Bounds = "none") -> Tensor:
        grams = [part._gram(pairs, bounds) for part in self._parts()]
        return functools.reduce(torch.add, grams)

    def _saturated(self, pairs: Pairs, bounds: Bounds) -> Tensor:
        return torch.stack([part._saturated(pairs, bounds) for part in self._parts()]).all(0)


class _Multiple(Kernel):
    _hyperparameters = ("factor",)

    def __init__(self, part: Kernel, factor: float) -> None:
        super().__init__()
        self.part = part
        self.factor = checks.positive_number("factor", factor)

    def _leaves(self) -> list[Leaf]:
        return [Leaf(self.factor * leaf.factor, leaf.kernel) for leaf in self.part._leaves()]

    def _evaluate(self, pairs: Pairs, bounds: Bounds = "none") -> Tensor:
        return self.factor * self.part._gram(pairs, bounds)

    def _saturated(self, pairs: Pairs, bounds: Bounds) -> Tensor:
        return self.part._saturated(pairs, bounds)
