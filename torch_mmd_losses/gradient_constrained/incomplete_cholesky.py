"""Incomplete Cholesky decomposition of a matrix that is given by its diagonal and by a function for its columns."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Columns = Callable[[Tensor], Tensor]
"""Returns the columns `(n, r)` of a symmetric matrix `(n, n)` at the indices `(r,)`."""


def factor(diagonal: Tensor, columns: Columns, rank: int, weights: Tensor | None = None) -> Tensor:
    r"""Return `R` `(rank, n)` with `R^T R` close to a positive semi-definite matrix `A`.

    The pivots are chosen one by one, each at the largest entry of the remaining diagonal. `R^T R` equals `A` in the
    rows and columns of the pivots. The remainder `A - R^T R` is positive semi-definite and shrinks with each pivot.
    Once the remainder is nothing but rounding, the rows of `R` are zero. The choice of pivots is a constant for
    autograd. For given pivots, derivatives of `R` follow from the derivatives of `A`.

    Args:
        diagonal: diagonal of `A`, `(n,)`.
        columns: returns columns of `A`, which is never built as a whole.
        rank: number of pivots.
        weights: weight of each entry of the remaining diagonal in the choice of pivots, `(n,)`, not negative.
    """
    with torch.no_grad():
        pivots, used = _pivots(diagonal, columns, rank, torch.ones_like(diagonal) if weights is None else weights)
    # An unused pivot is replaced by a row of the identity matrix, so that shapes do not depend on the numbers.
    chosen = columns(pivots) * used
    unused = torch.diag((~used).to(chosen.dtype))
    root = torch.linalg.cholesky(chosen[pivots] * used.unsqueeze(1) + unused)
    return torch.linalg.solve_triangular(root, chosen.T, upper=False)


def _pivots(diagonal: Tensor, columns: Columns, rank: int, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the indices `(rank,)` of the pivots, and a mask of the pivots whose remainder is more than rounding."""
    # Without forward-mode derivatives too, which do not stop where gradients are off.
    remaining, rows = diagonal.detach().clone(), diagonal.new_zeros(rank, len(diagonal))
    # A small divisor enlarges the errors of a row. Errors at a small weight are therefore as large as the weighted
    # errors at a large weight.
    rounding = len(diagonal) * torch.finfo(diagonal.dtype).eps * (weights * diagonal).amax()
    pivots, used = [], []
    for step in range(rank):
        pivot = (weights * remaining).argmax().unsqueeze(0)
        above_rounding = (weights * remaining)[pivot] > rounding
        remainder = columns(pivot)[:, 0].detach() - rows[:step, pivot].T.squeeze(0) @ rows[:step]
        rows[step] = (remainder / remaining[pivot].sqrt()).where(above_rounding, 0)
        remaining = (remaining - rows[step].square()).index_fill(0, pivot, 0)
        pivots.append(pivot)
        used.append(above_rounding)
    return torch.cat(pivots), torch.cat(used)
