"""Checks of groups of points and samples, and of their weights."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_mmd_losses import checks

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
    rows = checks.dense(name, value, "scores")
    if rows.dim() < 2 or rows.numel() == 0:
        raise ValueError(f"{name}: expected scores of shape (*G, m, d) with m >= 1 and d >= 1, got {tuple(rows.shape)}")
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
