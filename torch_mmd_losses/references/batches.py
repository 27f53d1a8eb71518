"""Samples that arrive as one tensor or as batches, with their weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, repeat
from typing import NamedTuple

import torch
from torch import Tensor, nn

from torch_mmd_losses import checks
from torch_mmd_losses.precision import total_dtype

Samples = Tensor | Iterable[Tensor]
"""Scores `(m, d)`, or an iterable of them."""


class Rows(NamedTuple):
    """Rows `(m, d)` in their own dtype, and their weights `(m,)` in :func:`total_dtype`; None means ones."""

    scores: Tensor
    weights: Tensor | None


def in_batches(name: str, samples: Samples, weights: Samples | None) -> Iterator[Rows]:
    """Yield a tensor of samples, or each batch of an iterable of them, with its weights.

    Args:
        name: name of the argument.
        samples: scores in any floating-point dtype, or an iterable of them.
        weights: one weight for each row, of either sign; of the same kind as `samples`.
    """
    if isinstance(samples, Tensor):
        yield checked(name, samples, "weights", weights)
        return
    if not isinstance(samples, Iterable) or isinstance(samples, (str, bytes, Mapping, nn.Module)):
        raise TypeError(
            f"{name}: expected a tensor of scores or an iterable of such tensors, got {checks.described(samples)} of "
            f"type {type(samples).__name__}"
        )
    if weights is not None and (isinstance(weights, Tensor) or not isinstance(weights, Iterable)):
        raise TypeError(
            f"weights: expected an iterable with one tensor for each batch of {name}, got {checks.described(weights)}"
        )
    first: Rows | None = None
    missing = object()
    given = iter(repeat(None) if weights is None else chain(weights, repeat(missing)))
    for i, batch in enumerate(samples):
        own = next(given)
        if own is missing:
            raise ValueError(f"weights: expected one tensor for each batch of {name}, got {i} for more batches")
        rows = checked(f"{name}[{i}]", batch, f"weights[{i}]", own)
        if first is not None:
            alike(f"{name}[0]", first.scores, f"{name}[{i}]", rows.scores)
        first = first or rows
        yield rows
    if weights is not None and next(given) is not missing:
        raise ValueError(f"weights: expected one tensor for each batch of {name}, got more tensors than batches")
    if first is None:
        raise ValueError(f"{name}: expected at least one batch of scores, got none")


def checked(name: str, scores: object, weights_name: str, weights: object) -> Rows:
    """Return rows without a graph, or raise if they or their weights are wrong."""
    matrix = checks.rows(name, scores).detach()
    checks.finite(name, matrix)
    if weights is None:
        return Rows(matrix, None)
    numbers = checks.weights(weights_name, weights, (len(matrix),), matrix.device).detach()
    if not bool(numbers.isfinite().all()):
        raise ValueError(f"{weights_name}: expected finite weights, got NaN or infinity")
    return Rows(matrix, numbers.to(total_dtype(matrix.device)))


def alike(name_a: str, a: Tensor, name_b: str, b: Tensor) -> None:
    """Raise if two batches differ in the dimension, the dtype or the device of their rows."""
    checks.same_columns(name_a, a, name_b, b)
    checks.same("dtype", name_a, a, name_b, b)
    checks.same("device", name_a, a, name_b, b)


def ones_like_rows(scores: Tensor) -> Tensor:
    """Return a weight of one for each row."""
    return torch.ones(len(scores), dtype=total_dtype(scores.device), device=scores.device)
