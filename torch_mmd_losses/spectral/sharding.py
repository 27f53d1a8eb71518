"""Weights that are divided among several processes."""

from __future__ import annotations

from torch import Tensor


def is_sharded(weight: object) -> bool:
    """Whether a weight is a DTensor, as weights under `fully_shard` are between forward passes."""
    # The attribute is checked, because importing the type takes longer than importing this library.
    return hasattr(weight, "full_tensor")


def whole(weight: Tensor) -> Tensor:
    """Return the weight as a plain tensor, gathered from all processes if it is sharded. Differentiable."""
    return weight.full_tensor() if is_sharded(weight) else weight  # type: ignore[attr-defined]
