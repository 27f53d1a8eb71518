"""Incomplete Cholesky decomposition of a matrix that is known by its diagonal and its columns."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Columns = Callable[[Tensor], Tensor]
"""What returns the columns `(n, r)` of a symmetric matrix `(n, n)` at the indices `(r,)`."""


def factor(diagonal: Tensor, columns: Columns, rank: int, weights: Tensor | None = None) -> Tensor:
    r"""Return `R` `(rank, n)` with `R^T R` close to a positive semi-definite matrix `A`.

    Pivots are chosen one by one where what is left of the diagonal is largest; `R^T R` equals `A` in their rows and
    columns, and what remains, `A - R^T R`, is positive semi-definite and shrinks with each of them. Once nothing is
    left but rounding, the rows of `R` are zero. The choice is a constant to autograd; given the pivots, derivatives are
    those of `A`.

    Args:
        diagonal: of `A`, `(n,)`.
        columns: returns those of `A`, which is never there as a whole.
        rank: how many pivots to choose.
        weights: how much the remainder of each diagonal entry counts in the choice, `(n,)`, not negative.
    """
    with torch.no_grad():
        pivots, used = _pivots(diagonal, columns, rank, torch.ones_like(diagonal) if weights is None else weights)
    # An unused pivot takes part as a row of the identity matrix, so that shapes do not depend on the numbers.
    chosen = columns(pivots) * used
    unused = torch.diag((~used).to(chosen.dtype))
    root = torch.linalg.cholesky(chosen[pivots] * used.unsqueeze(1) + unused)
    return torch.linalg.solve_triangular(root, chosen.T, upper=False)


def _pivots(diagonal: Tensor, columns: Columns, rank: int, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return indices `(rank,)`, and which of them were chosen for more than rounding."""
    remaining, rows = diagonal.clone(), diagonal.new_zeros(rank, len(diagonal))
    # Errors grow by what divides a row: where little counts, they are as large as the weighted ones where much does.
    rounding = len(diagonal) * torch.finfo(diagonal.dtype).eps * (weights * diagonal).amax()
    found, used = [], []
    for step in range(rank):
        pivot = (weights * remaining).argmax().unsqueeze(0)
        counts = (weights * remaining)[pivot] > rounding
        left = columns(pivot)[:, 0] - rows[:step, pivot].T.squeeze(0) @ rows[:step]
        rows[step] = (left / remaining[pivot].sqrt()).where(counts, 0)
        remaining = (remaining - rows[step].square()).index_fill(0, pivot, 0)
        found.append(pivot)
        used.append(counts)
    return torch.cat(found), torch.cat(used)
