"""The base class of kernels, and sums and multiples of kernels."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from torch_mmd_losses import checks
from torch_mmd_losses.distances import Pairs, Sample
from torch_mmd_losses.kernels.columns import checked_range, on_columns
from torch_mmd_losses.kernels.contract import (
    UNBOUNDED,
    Conditioning,
    GramFunction,
    HandWritten,
    Limits,
    Profile,
    checked_values,
    conditioning_by_autograd,
    hand_written,
    value_and_slope_by_autograd,
)
from torch_mmd_losses.kernels.hyperparameters import Hyperparameters
from torch_mmd_losses.kernels.products import product
from torch_mmd_losses.kernels.summands import (
    GramSummand,
    RadialSummand,
    Summand,
    checked_factor,
    sum_of_gram_matrices,
    with_factor,
)
from torch_mmd_losses.precision import full_precision
from torch_mmd_losses.types import Bounds, Group


class Kernel(Hyperparameters):
    r"""Base class of all kernels.

    To write a kernel, subclass this class and define one method. Define :meth:`from_sq_dist` for a kernel of the
    distance,

    .. math:: k(a, b) = f(\lVert a - b \rVert^2),

    or :meth:`forward` for any other kernel. The new kernel works in estimators, losses, gradients, sums and multiples
    like the kernels of the library. The value of a pair may depend on that pair only, because the library evaluates
    kernels on parts of the samples. So if the bandwidth depends on the scores, for example on their median distance,
    compute the bandwidth first and pass it to the kernel as a number or a tensor.

    `k1 + k2`, `sum([k1, k2])`, `2 * k` and `k / 2` are kernels. Differences and negative multiples are refused, because
    they need not be positive definite. `k1 * k2` is the product of two positive definite kernels, and
    `k.on(slice(0, 512))` is the kernel of some columns of the scores, see :meth:`on`. A kernel may write into its
    arguments, because they are copies.

    The hyper-parameters of the library's kernels are Python floats and exact in every precision: `.half()` does not
    round them, they do not belong to a device, and `state_dict` stores them as float64 extra state. Assignments are
    checked as in `__init__`. Numbers from 1e-30 to 1e30 are accepted. `load_state_dict` changes all parts of a sum, or
    none if it raises an error. Tensors are refused.

    **Trained kernels.** With `trainable=True`, the hyper-parameters of :class:`RBFKernel`, :class:`RBFMix`,
    :class:`RationalQuadraticKernel` and :class:`RationalQuadraticMix` are trained, and so are the scale of
    :class:`LaplaceKernel`, the length of :class:`MaternKernel` and `c` of :class:`InverseMultiquadricKernel`. Their
    logarithms are then the parameters of the module, so they stay positive: `kernel.log_sigma` is a
    :class:`torch.nn.Parameter`, and `kernel.sigma` is the tensor `kernel.log_sigma.exp()`. Assignments such as
    `kernel.sigma = 2.0` write into the parameter, which an optimiser keeps. Numbers from 1e-9 to 1e9 are accepted. To
    train only the bandwidths of a mixture, call `kernel.log_weights.requires_grad_(False)`. As in other modules, the
    parameters have the default dtype, move with `.to()`, and are stored in `state_dict`. The states of fixed and of
    trained kernels are not exchangeable.

    The parameters and buffers of a kernel stay in float32 or float64 in `.half()`, `.to(torch.bfloat16)` and the like,
    and when `load_state_dict` assigns a state of half precision. So do those of a network in a kernel of yours, because
    kernels compute in float32 or float64. In half precision, small steps of an optimiser would be lost, and the
    gradients of parameters would lose most of their digits. Tensors that are assigned to `.data` are not converted.

    A kernel that you write yourself is trained through all tensors that require gradients in `from_sq_dist` or
    `forward`: parameters of the module, other leaves, or tensors computed before the call. In large batches its memory
    grows with the number of samples, like that of a fixed kernel. If `forward` maps the scores through a network, the
    network runs once for each tile. It is faster to map the scores first, `mmd2(net(real), net(fake), kernel)`.

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

    def from_sq_dist(self, sq_dist: Tensor) -> Tensor:
        """Return the kernel values at squared distances.

        The function must be differentiable at zero, the distance of coincident samples. Take square roots only of
        numbers that stay above zero.

        Args:
            sq_dist: squared distances >= 0 of any shape.

        Returns:
            Values of the same shape.

        Raises:
            NotImplementedError: if the kernel is not a function of the distance.
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
            TypeError: if an argument is not a tensor.
            ValueError: if scores are empty or not floating-point, or differ in dimension, dtype or device.
        """
        matrix_a, matrix_b = checks.same_space("a", a, "b", b)
        left = Sample(matrix_a)
        right = left if a is b else Sample(matrix_b)
        pairs = Pairs(left, right, distinct=False, same=a is b)
        with full_precision(matrix_a.device):
            return sum_of_gram_matrices(self._own_summands(), pairs).to(matrix_a.dtype)

    _is_smooth: bool = True
    """Whether the kernel is twice differentiable at coincident samples."""

    _is_positive_definite: bool = True
    """Whether a product with the kernel is a kernel."""

    def on(self, columns: slice) -> Kernel:
        """Return this kernel as a kernel of some columns of the scores, `k(a[:, columns], b[:, columns])`.

        Sums and products of such kernels compare several features that lie next to each other. For example,
        `RBFKernel(sigma).on(slice(0, 512)) * RBFKernel(tau).on(slice(512, 640))` compares the joint distribution of
        images and texts, whose features are concatenated.

        Products of Gaussian kernels of columns take the time of one Gaussian kernel. Summands of columns are evaluated
        one after the other, each like a kernel alone. Other products of kernels of columns are differentiated by
        autograd, tile by tile.

        Args:
            columns: a slice of at least one column, without a step, with bounds counted from the first column.

        Returns:
            A kernel. It raises a `ValueError` for scores that do not have these columns.

        Raises:
            TypeError: if `columns` is not a slice of integers.
            ValueError: if the slice has a step or negative bounds, or selects nothing.

        Example:
            >>> kernel = RBFKernel().on(slice(0, 2)) * LaplaceKernel().on(slice(2, 3))
            >>> kernel(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 2.0]]))
            tensor([[0.0821]])
        """
        return _OnColumns(self, columns)

    # NumPy's numbers and arrays leave operators to the kernel.
    __array_ufunc__ = None

    def __add__(self, other: Kernel) -> Kernel:
        """Return the kernel `k(a, b) + other(a, b)`."""
        if isinstance(other, Kernel):
            return _Sum(*_parts(self, _Sum), *_parts(other, _Sum))
        if type(other) is int and other == 0:  # where `sum` starts
            return self
        raise TypeError(
            f"kernel + other: expected a Kernel to add, or the 0 that sum() starts from, got {_named(other)}"
        )

    __radd__ = __add__

    def __mul__(self, other: float | Kernel) -> Kernel:
        """Return the kernel `other * k(a, b)` for a number > 0, or `k(a, b) * other(a, b)` for a kernel."""
        if isinstance(other, Kernel):
            return _Product(*_parts(self, _Product), *_parts(other, _Product))
        return _Multiple(self, other)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Kernel:
        """Return the kernel `k(a, b) / divisor`, `divisor > 0`."""
        return _Multiple(self, 1 / checks.hyperparameter("divisor", divisor))

    def __rtruediv__(self, other: object) -> Kernel:
        """Raise: the inverse of a kernel is not a kernel."""
        raise TypeError(f"other / kernel: expected a kernel / number, got {_named(other)} / {_named(self)}")

    def __sub__(self, other: object) -> Kernel:
        """Raise: a difference of kernels need not be positive definite."""
        raise TypeError(
            f"kernel - other: expected a sum of kernels with factors > 0, got a difference with {_named(other)}"
        )

    __rsub__ = __sub__

    def __neg__(self) -> Kernel:
        """Raise: a kernel times a negative number is not positive definite."""
        raise TypeError(f"-kernel: expected a kernel times a factor > 0, got minus {_named(self)}")

    # The contract with the passes: see contract.py.

    def _summands(self) -> list[Summand]:
        """Return the summands of this kernel, with their factors."""
        if type(self).forward is Kernel.forward:
            return self._own_summands()
        # A subclass with its own `forward` is a new kernel, whatever else it inherits.
        return [GramSummand(1.0, self, GramFunction(self._values_of_forward))]

    def _own_summands(self) -> list[Summand]:
        """Return the summands of the kernel that `forward` of this class computes."""
        function = self._function()
        if isinstance(function, Profile):
            return [RadialSummand(1.0, self, function)]
        return [GramSummand(1.0, self, function)]

    def _function(self) -> Profile | GramFunction:
        """Return the function that the passes evaluate: by default, the profile that `from_sq_dist` defines."""
        slope = hand_written(type(self).from_sq_dist)
        if slope is None or self._trainable:
            value = self._checked_from_sq_dist
            conditioning, steps = partial(conditioning_by_autograd, self.from_sq_dist), None
            if slope is not None and slope.steps is not None:
                conditioning, steps = partial(self._conditioning_of_trained, slope), partial(slope.steps, self)
            slopes = partial(value_and_slope_by_autograd, value)
            return Profile(value, slopes, self._limits, conditioning, steps=steps)
        return Profile(
            self.from_sq_dist,
            partial(slope.value_and_slope, self),
            self._limits,
            partial(slope.conditioning, self),
            None if slope.exponent is None else slope.exponent(self),
            by_hand=True,
            in_float64=None if slope.in_float64 is None else partial(slope.in_float64, self),
            overwriting=None if slope.overwriting is None else partial(slope.overwriting, self),
        )

    def _conditioning_of_trained(self, slope: HandWritten, like: Tensor) -> Conditioning:
        found = slope.conditioning(self._as_numbers(), like)
        # Values are in the dtype of the scores, so float64 does not help: half the peak is at no distance.
        return Conditioning(found.steepness, found.elasticity, found.is_moderate)

    def _limits(self, group: Group, bounds: Bounds) -> Limits:
        """Return the limits to which the kernel clamps the squared distances of a group of pairs."""
        return UNBOUNDED

    def _checked_from_sq_dist(self, sq_dist: Tensor) -> Tensor:
        # A copy, because a user's kernel may write into its argument, which other kernels still need.
        values = self.from_sq_dist(sq_dist.clone())
        return checked_values(type(self).__name__, values, sq_dist.shape, sq_dist.device)

    def _values_of_forward(self, a: Sample, b: Sample) -> Tensor:
        # Copies too. A kernel that only passes its arguments on to another kernel gets the same copy twice for pairs
        # within a sample, so that their distances are exactly zero, but a kernel that writes into it gets two.
        left = a.scores.clone()
        counts = not (torch.compiler.is_compiling() or left.is_inference())
        right = left if counts and a.scores is b.scores else b.scores.clone()
        version = left._version if counts else 0
        values: object = self.forward(left, right)
        if right is left and left._version != version:
            values = self.forward(a.scores.clone(), b.scores.clone())
        shape = (a.scores.shape[0], b.scores.shape[0])
        return checked_values(type(self).__name__, values, shape, a.scores.device)


class _Sum(Kernel):
    def __init__(self, *parts: Kernel) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def _own_summands(self) -> list[Summand]:
        return [summand for part in self.parts for summand in _summands_of("parts", part)]


class _Multiple(Kernel):
    _hyperparameters = ("factor",)

    def __init__(self, part: Kernel, factor: float) -> None:
        super().__init__()
        self.part = part
        self.factor = checks.hyperparameter("factor", factor)
        self._own_summands()

    def _own_summands(self) -> list[Summand]:
        own, found = self.factor, []
        for summand in _summands_of("part", self.part):
            found.append(with_factor(checked_factor(own * summand.factor), summand))
        return found


class _Product(Kernel):
    def __init__(self, *parts: Kernel) -> None:
        super().__init__()
        for part in parts:
            indefinite = [module for module in part.modules() if not getattr(module, "_is_positive_definite", True)]
            if indefinite:
                raise TypeError(
                    "kernel, other: expected positive definite kernels, whose products are kernels, got a kernel that "
                    f"contains {_named(indefinite[0])}"
                )
        self.parts = nn.ModuleList(parts)
        self._own_summands()

    def _own_summands(self) -> list[Summand]:
        return [product(self, [_summands_of("parts", part) for part in self.parts])]


class _OnColumns(Kernel):
    def __init__(self, part: Kernel, columns: slice) -> None:
        super().__init__()
        self.part = part
        self._range = checked_range(columns)

    def _own_summands(self) -> list[Summand]:
        return [GramSummand(1.0, self, on_columns([self._range], _summands_of("part", self.part)))]

    def _checksum(self) -> float:
        return float(zlib.crc32(self.extra_repr().encode()))  # a state belongs to the same columns

    def extra_repr(self) -> str:
        return f"columns={slice(*self._range[:2])}"


def _summands_of(name: str, part: object) -> list[Summand]:
    """Return the summands of a part of a kernel, which may have been replaced since."""
    if not isinstance(part, Kernel):
        raise TypeError(f"{name}: expected kernels, got {_named(part)}")
    return part._summands()


def _parts(kernel: Kernel, kind: type[Kernel]) -> Iterable[Kernel]:
    """Return the parts of a plain sum or product, so that they do not nest, or the kernel itself."""
    return cast(Iterable[Kernel], kernel.parts) if type(kernel) is kind else (kernel,)


def _named(value: object) -> str:
    """Return a short description of an operand for an error message."""
    if isinstance(value, Kernel):
        return type(value).__name__
    return f"{checks.described(value)} of type {type(value).__name__}"


def rough_parts(kernel: nn.Module) -> list[str]:
    """Return the names of the kernels within a kernel that are not twice differentiable at coincident samples."""
    parts = (part for part in kernel.modules() if isinstance(part, Kernel))
    return [type(part).__name__ for part in parts if not part._is_smooth]


def check_kernel(kernel: Any) -> None:  # noqa: ANN401
    """Raise if `kernel` is not a :class:`Kernel`."""
    if not isinstance(kernel, Kernel):
        raise TypeError(f"kernel: expected a Kernel such as RBFKernel(sigma=1.0), got {checks.described(kernel)}")
