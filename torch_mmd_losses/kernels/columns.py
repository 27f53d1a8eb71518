"""Kernels of some columns of the scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral

import torch
from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.distances import Pairs, Sample
from torch_mmd_losses.kernels.contract import ColumnRange, GramFunction, OfColumns
from torch_mmd_losses.kernels.summands import Summand, is_by_hand, sum_of_gram_matrices, takes_groups
from torch_mmd_losses.precision import total_dtype


def checked_range(columns: object) -> ColumnRange:
    """Return the columns that a slice selects, or raise."""
    if not isinstance(columns, slice):
        raise TypeError(f"columns: expected a slice such as slice(0, 512), got {checks.described(columns)}")
    if columns.step not in (None, 1):
        raise ValueError(f"columns: expected a slice without a step, got {columns}")
    bounds = [bound for bound in (columns.start, columns.stop) if bound is not None]
    if not all(isinstance(bound, Integral) and not isinstance(bound, bool) for bound in bounds):
        raise TypeError(f"columns: expected a slice of integers, got {checks.described(columns)}")
    if any(bound < 0 for bound in bounds):
        raise ValueError(f"columns: expected bounds >= 0, counted from the first column, got {columns}")
    start, stop = int(columns.start or 0), None if columns.stop is None else int(columns.stop)
    if stop is not None and stop <= start:
        raise ValueError(f"columns: expected a slice of at least one column, got {columns}")
    return ColumnRange(start, stop)


def on_columns(ranges: Sequence[ColumnRange], summands: Sequence[Summand]) -> GramFunction:
    """Return the sum of `summands` as a kernel of some columns of the scores."""
    of_columns = OfColumns(tuple(ranges), summands)
    return of_pairs(partial(_gram_matrix, of_columns), summands, of_columns)


def of_pairs(
    values: Callable[[Pairs], Tensor], summands: Sequence[Summand], of_columns: OfColumns | None = None
) -> GramFunction:
    """Return a function of pairs that evaluates some summands as a Gram function."""

    def of_samples(a: Sample, b: Sample) -> Tensor:
        return values(Pairs(a, b, distinct=False, same=a is b))

    return GramFunction(
        of_samples,
        by_hand=all(map(is_by_hand, summands)),
        values_of_pairs=values,
        of_columns=of_columns,
        by_groups=all(map(takes_groups, summands)),
    )


def selected(scores: Tensor, ranges: Sequence[ColumnRange]) -> Tensor:
    """Return ranges of the columns of scores `(..., m, d)` next to each other, each times its scale.

    Scaled columns are in :func:`total_dtype`: rounding a product would change differences of scores that are far from
    zero.
    """
    dimension = scores.shape[-1]
    for start, stop, _ in ranges:
        least = start + 1 if stop is None else stop
        if dimension < least:
            raise ValueError(
                f"columns: expected scores of at least {least} dimensions for kernel.on(slice({start}, {stop})), got "
                f"{dimension}"
            )
    parts = [scores[..., start:stop] for start, stop, _ in ranges]
    if any(scale != 1 for *_, scale in ranges):
        parts = [part.to(total_dtype(scores.device)) * scale for part, (*_, scale) in zip(parts, ranges, strict=True)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def pairs_of_columns(pairs: Pairs, ranges: Sequence[ColumnRange]) -> Pairs:
    """Return the pairs of some columns of the scores."""
    a = Sample(selected(pairs.a.scores, ranges))
    b = a if pairs.b is pairs.a else Sample(selected(pairs.b.scores, ranges))
    return type(pairs)(a, b, distinct=pairs.distinct, same=pairs.same, shift=pairs.shift)


def _gram_matrix(of_columns: OfColumns, pairs: Pairs) -> Tensor:
    return sum_of_gram_matrices(of_columns.summands, pairs_of_columns(pairs, of_columns.ranges))
