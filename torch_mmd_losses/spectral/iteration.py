"""Find the singular vectors of a new weight, and update them after a change of the weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses import hand_written_gradients
from torch_mmd_losses.precision import full_precision
from torch_mmd_losses.spectral import fingerprint as fingerprints
from torch_mmd_losses.spectral import singular_vectors
from torch_mmd_losses.spectral.operators import LinearOperator


class FirstVectors(NamedTuple):
    """The top singular vectors of a new weight, and the fingerprint of this weight."""

    u: Tensor
    v: Tensor
    fingerprint: Tensor


def first_vectors(operator: LinearOperator, weight: Tensor, shape: Sequence[int]) -> FirstVectors:
    """Return the vectors for a new weight, by Lanczos iteration from a fixed start vector of this shape."""
    with full_precision(weight.device):
        precise = at_least_float32(weight)
        v = singular_vectors.top_singular_vector(operator, precise, shape)
        u = singular_vectors.left_singular_vector(operator, precise, v)
        return FirstVectors(u, v, fingerprints.fingerprint(precise))


def follow(
    operator: LinearOperator, weight: Tensor, fingerprint: Tensor, vectors: Sequence[Tensor], steps: int
) -> None:
    """Iterate in place if the weight does not have the given `fingerprint`.

    Args:
        operator: the operator of the layer.
        weight: the trained weight.
        fingerprint: that of the weight for which the vectors were last updated. It changes in place.
        vectors: `(v,)` for power iteration, or `(u, v, direction)` for locally optimal iteration.
        steps: iterations for one change of the weight.
    """
    with full_precision(weight.device):
        precise = at_least_float32(weight)
        current = fingerprints.fingerprint(precise)
        if weight.device.type == "cpu" and hand_written_gradients.reverse_mode_only(weight):
            if bool(current == fingerprint):
                return
            updates = _next_vectors(operator, precise, vectors, steps)
        else:  # the host must not wait for the device, and export cannot branch
            changed = current != fingerprint
            found = _next_vectors(operator, precise, vectors, steps)
            updates = [torch.where(changed, new, old.to(new.dtype)) for old, new in zip(vectors, found, strict=True)]
        for old, new in zip(vectors, updates, strict=True):
            old.copy_(new)
        fingerprint.copy_(current)


def at_least_float32(x: Tensor) -> Tensor:
    """Return `x` in float32, or unchanged if it is in float64."""
    return x if x.dtype == torch.float64 else x.float()


def _next_vectors(operator: LinearOperator, weight: Tensor, vectors: Sequence[Tensor], steps: int) -> Sequence[Tensor]:
    same_dtype = [vector.to(weight.dtype) for vector in vectors]
    if len(same_dtype) == 1:
        return [singular_vectors.power_iteration(operator, weight, same_dtype[0], steps)]
    _, v, direction = same_dtype
    return singular_vectors.locally_optimal_iteration(operator, weight, v, direction, steps)
