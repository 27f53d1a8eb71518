"""Checks of user arguments: every error message names the argument, the expected value and the value received."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Integral, Real

import torch
from torch import Tensor

from torch_mmd_losses.types import ESTIMATORS, Estimator

_PRECISE = (torch.float32, torch.float64)


def finite_number(name: str, value: object) -> float:
    """Return `value` as a float if it is a finite real number."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a real number, got {described(value)} of type {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value!r}")
    return float(value)


def positive_number(name: str, value: object) -> float:
    """Return `value` as a float if it is a finite number above zero."""
    number = finite_number(name, value)
    if number <= 0:
        raise ValueError(f"{name}: expected a number > 0, got {value!r}")
    return number


def positive_numbers(name: str, values: object) -> tuple[float, ...]:
    """Return `values` as a tuple of floats if it is a non-empty sequence of numbers above zero."""
    if not isinstance(values, Iterable) or isinstance(values, (str, Tensor)):
        raise TypeError(f"{name}: expected a sequence of numbers > 0, got {values!r}")
    numbers = tuple(positive_number(f"{name}[{i}]", value) for i, value in enumerate(values))
    if not numbers:
        raise ValueError(f"{name}: expected at least one number > 0, got an empty sequence")
    return numbers


def mixture_weights(weights: object, parts: int) -> tuple[float, ...]:
    """Return the weights of a mixture of `parts` kernels; None means the plain sum, as in the papers."""
    if weights is None:
        return (1.0,) * parts
    numbers = positive_numbers("weights", weights)
    if len(numbers) != parts:
        raise ValueError(f"weights: expected one weight for each of the {parts} kernels, got {len(numbers)}")
    return numbers


def whole_number(name: str, value: object, *, least: int) -> int:
    """Return `value` as an int if it is an integer >= `least`."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name}: expected an integer, got {value!r} of type {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name}: expected an integer >= {least}, got {value!r}")
    return int(value)


def tile_size(value: object) -> int | None:
    """Return `value` as an int if it is an integer above zero, or None for the default of the device."""
    return None if value is None else whole_number("tile_size", value, least=1)


def one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise if `value` is not one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {value!r}")


def scores(name: str, value: object) -> Tensor:
    """Return scores `(m,)`, `(m, d)` or `(m, ...)` as a matrix `(m, d)`, in float64 if they are float64, else float32.

    Half precision is converted to float32 here, once, because squared distances of 16-bit scores lose all digits.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor of scores, got {type(value).__name__}")
    if not value.is_floating_point():
        raise ValueError(f"{name}: expected floating-point scores, got {value.dtype}")
    if value.dim() == 0 or value.numel() == 0:
        raise ValueError(f"{name}: expected scores of shape (m, d) with m >= 1 and d >= 1, got {tuple(value.shape)}")
    if value.dim() != 2:
        value = value.unsqueeze(1) if value.dim() == 1 else value.flatten(1)
    return value if value.dtype in _PRECISE else value.float()


def same_space(name_a: str, a: Tensor, name_b: str, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return both arguments as score matrices after checking that they can be compared."""
    if (
        type(a) is Tensor
        and type(b) is Tensor
        and a.dtype is b.dtype
        and a.dtype in _PRECISE
        and a.dim() == 2
        and a.shape[1:] == b.shape[1:]
        and a.numel()
        and b.numel()
        and a.device == b.device
    ):
        return a, b  # a fast path: in small batches, the checks below take a noticeable part of the time of a loss
    matrix_a, matrix_b = scores(name_a, a), scores(name_b, b)
    if matrix_a.shape[1] != matrix_b.shape[1]:
        raise ValueError(
            f"{name_a}, {name_b}: expected the same score dimension d, got {matrix_a.shape[1]} and "
            f"{matrix_b.shape[1]} (shapes {tuple(a.shape)} and {tuple(b.shape)})"
        )
    if a.dtype != b.dtype:
        raise ValueError(f"{name_a}, {name_b}: expected the same dtype, got {a.dtype} and {b.dtype}")
    if a.device != b.device:
        raise ValueError(f"{name_a}, {name_b}: expected the same device, got {a.device} and {b.device}")
    return matrix_a, matrix_b


def described(value: object) -> str:
    """Return a short description of a wrong argument for an error message: of a tensor, only its shape."""
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)


def flag(name: str, value: object) -> bool:
    """Return `value` if it is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {value!r} of type {type(value).__name__}")
    return value


def sample_sizes(m: int, n: int, estimator: Estimator) -> None:
    """Raise if the estimator is unknown or is not defined for `m` real and `n` fake samples."""
    if estimator not in ESTIMATORS:
        one_of("estimator", estimator, ESTIMATORS)
    if estimator != "biased" and min(m, n) < 2:
        raise ValueError(
            f"real, fake: expected at least 2 samples each for estimator={estimator!r}, which leaves out the pairs "
            f"of a sample with itself, got {m} and {n} (if the last batch has a single sample, use drop_last=True)"
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
        raise TypeError(f"generator: expected a torch.Generator or None, got {value!r}")
