"""Checks of the weights of samples, and of other arguments of fields."""

from __future__ import annotations

from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.hand_written_gradients import reverse_mode_only
from torch_mmd_losses.precision import at_least_float32


def weights(name: str, value: object, rows: Tensor, groups: tuple[int, ...]) -> Tensor | None:
    """Return the weights of rows `(g, n, d)` as `(g, n)`, float64 if they are float64, else float32; or None."""
    if value is None:
        return None
    given = checks.weights(name, value, (*groups, rows.shape[1]), rows.device)
    return at_least_float32(given.reshape(rows.shape[:2]))


def sample_weights(name: str, value: object, rows: Tensor, groups: tuple[int, ...], *, signed: bool) -> Tensor:
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
