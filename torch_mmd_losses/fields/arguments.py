"""Checks of groups of points and samples, and of their weights."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.hand_written_gradients import reverse_mode_only

_PRECISE = (torch.float32, torch.float64)


def grouped(name_a: str, a: object, name_b: str, b: object) -> tuple[Tensor, Tensor, torch.Size]:
    """Return both sets of rows as `(g, m, d)` and `(g, n, d)`, and the shape of the groups, after checking them.

    If both arguments are the same object, both results are.
    """
    rows_a = _rows(name_a, a)
    rows_b = rows_a if b is a else _rows(name_b, b)
    if rows_a.shape[:-2] != rows_b.shape[:-2]:
        raise ValueError(
            f"{name_a}, {name_b}: expected the same groups, got {tuple(rows_a.shape[:-2])} and "
            f"{tuple(rows_b.shape[:-2])} (shapes {tuple(rows_a.shape)} and {tuple(rows_b.shape)})"
        )
    if rows_a.shape[-1] != rows_b.shape[-1]:
        raise ValueError(
            f"{name_a}, {name_b}: expected the same score dimension d, got {rows_a.shape[-1]} and {rows_b.shape[-1]} "
            f"(shapes {tuple(rows_a.shape)} and {tuple(rows_b.shape)})"
        )
    checks.same("dtype", name_a, rows_a, name_b, rows_b)
    checks.same("device", name_a, rows_a, name_b, rows_b)
    flat_a = rows_a.reshape(-1, *rows_a.shape[-2:])
    flat_b = flat_a if rows_b is rows_a else rows_b.reshape(-1, *rows_b.shape[-2:])
    return flat_a, flat_b, rows_a.shape[:-2]


def _rows(name: str, value: object) -> Tensor:
    rows = checks.grouped_rows(name, value)
    return rows if rows.dtype in _PRECISE else rows.float()


def weights(name: str, value: object, rows: Tensor, groups: torch.Size) -> Tensor | None:
    """Return the weights of rows `(g, n, d)` as `(g, n)`, float64 if they are float64, else float32; or None."""
    if value is None:
        return None
    given = checks.dense(name, value, "weights")
    expected = (*groups, rows.shape[1])
    if given.shape != expected:
        raise ValueError(
            f"{name}: expected weights of shape {tuple(expected)}, one for each sample, got {tuple(given.shape)}"
        )
    if given.device != rows.device:
        raise ValueError(f"{name}: expected weights on the device of the samples, {rows.device}, got {given.device}")
    flat = given.reshape(rows.shape[:2])
    return flat if flat.dtype in _PRECISE else flat.float()


def sample_weights(name: str, value: object, rows: Tensor, groups: torch.Size, *, signed: bool) -> Tensor:
    """Return the weights of rows as :func:`weights` does, or ones, and raise if one is below zero unless `signed`.

    Only weights on a CPU are checked. On other devices the host would have to wait for them.
    """
    found = weights(name, value, rows, groups)
    if found is None:
        return rows.new_ones(rows.shape[:2])
    if not signed and found.is_cpu and reverse_mode_only(found) and bool((found < 0).any()):
        raise ValueError(f"{name}: expected weights >= 0, got {float(found.detach().min()):g}")
    return found


def check_negatives(fake: Tensor, negatives: Tensor, *, distinct: bool) -> None:
    """Raise if no negatives remain without pairs of equal index, or if a fake sample has none of its index."""
    n, count = fake.shape[1], negatives.shape[1]
    if not distinct:
        return
    if negatives is fake and n < 2:
        raise ValueError(f"fake: expected at least 2 samples, the negatives of one another, got {n}")
    if count < max(n, 2):
        raise ValueError(
            f"fake, negatives: expected at least {max(n, 2)} negatives for exclude_self=True, one for each fake sample "
            f"and more than one, got {count}"
        )


def floor(name: str, value: object) -> float:
    """Return `value` as a float if it is a finite number >= 0."""
    number = checks.finite_number(name, value)
    if number < 0:
        raise ValueError(f"{name}: expected a number >= 0, got {checks.described(value)}")
    return number
