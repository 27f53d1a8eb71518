"""Checks of user arguments: every error message names the argument, the expected value and the value received."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from numbers import Integral, Real

import numpy as np
import torch
from torch import Tensor, nn

from torch_mmd_losses.precision import at_least_float32
from torch_mmd_losses.types import ESTIMATORS, Estimator

_PACKED = getattr(torch, "float4_e2m1fn_x2", None)  # PyTorch 2.6 has no such dtype
_PLAIN = (Tensor, nn.Parameter)
_LARGEST_INTEGER = 2**63 - 1
_LONGEST_DESCRIPTION = 120
_ROWS_AT_ONCE = 2**14

RANGE = (1e-30, 1e30)
"""The range of hyper-parameters of kernels: their squares and products have full precision in float64."""


def finite_number(name: str, value: object) -> float:
    """Return `value` as a float if it is a finite real number."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a real number, got {described(value)} of type {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not -math.inf < number < math.inf:  # the compiler cannot trace `isfinite` for a number that is a symbol
        raise ValueError(f"{name}: expected a finite number, got {described(value)}")
    return number


def positive_number(name: str, value: object) -> float:
    """Return `value` as a float if it is a finite number above zero."""
    number = finite_number(name, value)
    if number <= 0:
        raise ValueError(f"{name}: expected a number > 0, got {described(value)}")
    return number


def hyperparameter(name: str, value: object, limits: tuple[float, float] = RANGE) -> float:
    """Return `value` as a float if it is a positive number within limits: a hyper-parameter of a kernel."""
    number = positive_number(name, value)
    if not limits[0] <= number <= limits[1]:
        raise ValueError(f"{name}: expected a number between {limits[0]:g} and {limits[1]:g}, got {described(value)}")
    return number


def hyperparameters(name: str, values: object) -> tuple[float, ...]:
    """Return `values` as a tuple of floats if it is a non-empty sequence of numbers, see :func:`hyperparameter`.

    Any iterable with an order is a sequence, except text, bytes and tensors.
    """
    if (
        not isinstance(values, Iterable)
        or isinstance(values, (str, bytes, bytearray, memoryview, Tensor, Mapping, Set))
        or (isinstance(values, np.ndarray) and values.ndim != 1)
    ):
        raise TypeError(f"{name}: expected a sequence of numbers > 0, got {described(values)}")
    numbers = tuple(hyperparameter(f"{name}[{i}]", value) for i, value in enumerate(values))
    if not numbers:
        raise ValueError(f"{name}: expected at least one number > 0, got an empty sequence")
    return numbers


def mixture_weights(weights: object, parts: int) -> tuple[float, ...]:
    """Return the weights of a mixture of `parts` kernels; None means the plain sum, as in the papers."""
    if weights is None:
        return (1.0,) * parts
    numbers = hyperparameters("weights", weights)
    if len(numbers) != parts:
        raise ValueError(f"weights: expected one weight for each of the {parts} kernels, got {len(numbers)}")
    return numbers


def whole_number(name: str, value: object, *, least: int, most: int | None = None) -> int:
    """Return `value` as an int if it is an integer >= `least`, and <= `most` if that is given."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name}: expected an integer, got {described(value)} of type {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name}: expected an integer >= {least}, got {described(value)}")
    number = int(value)
    if most is not None and number > most:
        raise ValueError(f"{name}: expected an integer from {least} to {most}, got {described(value)}")
    if number > _LARGEST_INTEGER:
        raise ValueError(f"{name}: expected an integer < 2**63, got {described(value)}")
    return number


def tile_size(value: object) -> int | None:
    """Return `value` as an int if it is an integer above zero, or None for the default of the device."""
    return None if value is None else whole_number("tile_size", value, least=1)


def one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise if `value` is not one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {described(value)}")


def scores(name: str, value: object) -> Tensor:
    """Return scores `(m,)`, `(m, d)` or `(m, ...)` as a matrix `(m, d)`, in float64 if they are float64, else float32.

    Half precision is converted to float32 here, once, because squared distances of 16-bit scores lose all digits.
    """
    return at_least_float32(rows(name, value))


def rows(name: str, value: object) -> Tensor:
    """Return scores `(m,)`, `(m, d)` or `(m, ...)` as a matrix `(m, d)` in their own dtype."""
    matrix = plain(dense(name, value, "scores"))
    if matrix.dim() == 0 or matrix.numel() == 0:
        empty = matrix.dim() > 0 and matrix.shape[0] == 0
        raise ValueError(
            f"{name}: expected scores of shape (m, d) with m >= 1 and d >= 1, got {tuple(matrix.shape)}"
            + ("; leave out a class or group without samples" if empty else "")
        )
    if matrix.dim() != 2:
        matrix = matrix.unsqueeze(1) if matrix.dim() == 1 else matrix.flatten(1)
    return matrix


def grouped_rows(name: str, value: object, *, condition: str = "") -> Tensor:
    """Return scores `(*G, m, d)` in their own dtype.

    Args:
        name: name of the argument.
        value: the argument.
        condition: the end of the expectation in an error, such as `" for grouped=True"`.
    """
    scores = plain(dense(name, value, "scores"))
    if scores.dim() < 2 or 0 in scores.shape[-2:]:
        expected = "m >= 1 and d >= 1"
    elif not scores.numel():
        expected = "at least one group"
    else:
        return scores
    raise ValueError(
        f"{name}: expected scores of shape (*G, m, d) with {expected}{condition}, got {tuple(scores.shape)}"
    )


def finite(name: str, sample: Tensor, kind: str = "scores") -> None:
    """Raise if a matrix of scores has no values, or if some of them are not finite. See :func:`dense` for `kind`."""
    if sample.is_meta:
        raise ValueError(f"{name}: expected a tensor with values, got one of shape {tuple(sample.shape)} on meta")
    # In parts, because a mask of everything takes more memory than large samples in half precision.
    broken = sum([int(part.isfinite().all(1).logical_not().sum()) for part in sample.split(_ROWS_AT_ONCE)])
    if broken:
        raise ValueError(f"{name}: expected finite {kind}, got NaN or infinity in {broken} of {len(sample)} samples")


def dense(name: str, value: object, kind: str) -> Tensor:
    """Return `value` if it is a floating-point tensor with one number in each place.

    Args:
        name: name of the argument.
        value: the argument.
        kind: the contents of the argument, in the plural.
    """
    if not isinstance(value, Tensor):
        hint = ""
        if isinstance(value, (tuple, list, Mapping)):
            hint = f" of length {len(value)}; take the {kind} out of it{_first_tensors(name, value)}"
        elif isinstance(value, np.ndarray):
            hint = "; call torch.from_numpy"
        raise TypeError(f"{name}: expected a tensor of {kind}, got {type(value).__name__}{hint}")
    if type(value) not in _PLAIN:
        # The attribute is checked, because importing the type takes longer than importing this library.
        if hasattr(value, "full_tensor"):
            raise TypeError(
                f"{name}: expected a plain tensor of {kind}, got a {type(value).__name__}; call .full_tensor() for the "
                f"{kind} of all processes, or .to_local() for those of this one"
            )
        if isinstance(value, torch.masked.MaskedTensor):
            raise TypeError(
                f"{name}: expected a plain tensor of {kind}, got a MaskedTensor; leave out the masked {kind} first"
            )
    if not torch.compiler.is_compiling() and value.is_nested:  # the compiler of PyTorch 2.6 may not know `is_nested`
        raise ValueError(
            f"{name}: expected {kind} of equal shape, got a nested tensor; pad it, or stack its parts into one tensor"
        )
    if value.layout is not torch.strided:
        raise ValueError(f"{name}: expected {kind} in a dense tensor, got the layout {value.layout}; call .to_dense()")
    if not value.is_floating_point():
        raise ValueError(f"{name}: expected floating-point {kind}, got {value.dtype}")
    if value.dtype is _PACKED:
        raise ValueError(f"{name}: expected {kind} with one number in each entry, got {value.dtype}, which packs two")
    return value


def plain(numbers: Tensor) -> Tensor:
    """Return scores or other numbers in a subclass of tensors as a plain tensor, in the same graph.

    A subclass for images or noise passes its type on to the scores that a network computes from them, and its methods
    may fail for other tensors. Subclasses with a `__torch_dispatch__` may not hold their numbers, and stay as they are.
    """
    kind = type(numbers)
    if kind in _PLAIN or torch.compiler.is_compiling() or kind.__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return numbers
    return numbers.as_subclass(Tensor)


def _first_tensors(name: str, values: Sequence[object] | Mapping[object, object]) -> str:
    """Return the shapes of the first two of several outputs of a network, as the end of a sentence."""
    if isinstance(values, Mapping) or not all(type(each) in _PLAIN and not each.is_nested for each in values):  # type: ignore[attr-defined]
        return ""
    shapes = [f"{name}[{i}] is {described(each)}" for i, each in enumerate(values[:2])]
    return f": {', '.join(shapes)}" if shapes else ""


def same_space(name_a: str, a: Tensor, name_b: str, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return both arguments as score matrices after checking that they can be compared."""
    matrix_a, matrix_b = scores(name_a, a), scores(name_b, b)
    if matrix_a.shape[1] != matrix_b.shape[1]:
        raise ValueError(
            f"{name_a}, {name_b}: expected the same score dimension d, got {matrix_a.shape[1]} and "
            f"{matrix_b.shape[1]} (shapes {tuple(a.shape)} and {tuple(b.shape)}){_flattening(a, b)}"
        )
    same("dtype", name_a, a, name_b, b)
    same("device", name_a, a, name_b, b)
    return matrix_a, matrix_b


def _flattening(a: Tensor, b: Tensor) -> str:
    """Return an explanation of the score dimension of scores with more than two dimensions, or nothing."""
    if max(a.dim(), b.dim()) < 3:
        return ""
    return "; scores (m, ...) are flattened from dim 1, and grouped_mmd2 takes groups of samples (*G, m, d)"


def same_groups(name_a: str, a: object, name_b: str, b: object) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Return both arguments as groups of scores `(g, m, d)` and `(g, n, d)`, and the shape of the groups.

    They are float64 if they are float64, else float32. If both arguments are the same object, both results are.
    """
    rows_a = grouped_rows(name_a, a)
    rows_b = rows_a if b is a else grouped_rows(name_b, b)
    shapes = f"(shapes {tuple(rows_a.shape)} and {tuple(rows_b.shape)})"
    groups, other_groups = tuple(rows_a.shape[:-2]), tuple(rows_b.shape[:-2])
    if groups != other_groups:
        raise ValueError(f"{name_a}, {name_b}: expected the same groups, got {groups} and {other_groups} {shapes}")
    if rows_a.shape[-1] != rows_b.shape[-1]:
        raise ValueError(
            f"{name_a}, {name_b}: expected the same score dimension d, got {rows_a.shape[-1]} and {rows_b.shape[-1]} "
            f"{shapes}"
        )
    same("dtype", name_a, rows_a, name_b, rows_b)
    same("device", name_a, rows_a, name_b, rows_b)
    flat_a = at_least_float32(rows_a.reshape(-1, *rows_a.shape[-2:]))
    flat_b = flat_a if rows_b is rows_a else at_least_float32(rows_b.reshape(-1, *rows_b.shape[-2:]))
    return flat_a, flat_b, groups


def weights(name: str, value: object, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Return `value` if it is a tensor of weights of the given shape, one for each sample, and on the given device."""
    given = plain(dense(name, value, "weights"))
    if given.shape != shape:
        raise ValueError(f"{name}: expected weights of shape {shape}, one for each sample, got {tuple(given.shape)}")
    if given.device != device:
        raise ValueError(f"{name}: expected weights on the device of the scores, {device}, got {given.device}")
    return given


def same_columns(name_a: str, a: Tensor, name_b: str, b: Tensor) -> None:
    """Raise if two matrices of scores differ in their dimension."""
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"{name_a}, {name_b}: expected the same score dimension d, got {a.shape[1]} and {b.shape[1]}")


def same(attribute: str, name_a: str, a: Tensor, name_b: str, b: Tensor) -> None:
    """Raise if two tensors differ in an attribute."""
    first, second = getattr(a, attribute), getattr(b, attribute)
    if first != second:
        raise ValueError(f"{name_a}, {name_b}: expected the same {attribute}, got {first} and {second}")


def with_values(samples: Mapping[str, Tensor], purpose: str) -> None:
    """Raise if one of the samples, which are given by argument name, is on the meta device.

    Args:
        samples: the samples.
        purpose: a relative clause that explains why their values are needed.
    """
    if any(sample.is_meta for sample in samples.values()):
        raise ValueError(f"{', '.join(samples)}: expected scores with values, {purpose}, got scores on the meta device")


def described(value: object) -> str:
    """Return a one-line description of a wrong argument for an error message; for a tensor, only its shape."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, type):
        return f"the class {value.__name__}, not an instance"
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python does not print integers of more than 4300 digits
        return f"a number of type {type(value).__name__} that is too long to print"
    return text if len(text) <= _LONGEST_DESCRIPTION else f"{text[:_LONGEST_DESCRIPTION]}..."


def flag(name: str, value: object) -> bool:
    """Return `value` if it is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {described(value)} of type {type(value).__name__}")
    return value


def sample_sizes(m: int, n: int, estimator: Estimator) -> None:
    """Raise if the estimator is unknown or is not defined for `m` real and `n` fake samples."""
    if not isinstance(estimator, str) or estimator not in ESTIMATORS:
        one_of("estimator", estimator, ESTIMATORS)
    if estimator != "biased" and min(m, n) < 2:
        raise ValueError(
            f"real, fake: expected at least 2 samples each for estimator={estimator!r}, which leaves out the pairs "
            f"of a sample with itself, got {m} and {n} (if the last batch has a single sample, use drop_last=True; "
            "leave out a class or group that has fewer)"
        )
    if estimator == "u_statistic" and m != n:
        raise ValueError(f"real, fake: expected equally many samples for estimator='u_statistic', got {m} and {n}")


def enough_samples(samples: Mapping[str, Tensor], *, least: int) -> None:
    """Raise if one of the samples, which are given by argument name, is smaller than `least`."""
    sizes = [sample.shape[0] for sample in samples.values()]
    if min(sizes) < least:
        raise ValueError(f"{', '.join(samples)}: expected at least {least} samples each, got {_joined(sizes)}")


def _joined(numbers: Iterable[int]) -> str:
    return " and ".join(map(str, numbers))


def random_generator(value: object) -> None:
    """Raise if `value` is neither a :class:`torch.Generator` nor None."""
    if not (value is None or isinstance(value, torch.Generator)):
        raise TypeError(f"generator: expected a torch.Generator or None, got {described(value)}")
