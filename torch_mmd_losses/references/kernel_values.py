"""Kernel values of points with the rows of a reference, chunk by chunk of the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from torch_mmd_losses.devices import moved
from torch_mmd_losses.distances import Pairs, Sample
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.summands import RadialSummand, sum_of_gram_matrices
from torch_mmd_losses.pairs.kernel_products import kernel_products
from torch_mmd_losses.precision import total_dtype
from torch_mmd_losses.references.batches import ones_like_rows
from torch_mmd_losses.references.row_sums import Term, Terms, sum_of_terms
from torch_mmd_losses.references.value_and_gradient import Parts, is_fast, values_and_gradients

CHUNK = 2**14
"""Rows of a reference that are converted to the dtype and the device of the points at once."""

BLOCK = 32
"""Rows of a block of a Gram matrix if only the diagonal is needed."""


def working_dtype(*tensors: Tensor) -> torch.dtype:
    """Return the dtype in which kernel values of rows are computed: float64 if some are float64, else float32."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def chunks(
    rows: Tensor, weights: Tensor | None, like: Tensor, *, size: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield parts of the rows, in the dtype and on the device of `like`, with the parts of their weights.

    Args:
        rows: rows `(m, d)`.
        weights: weights `(m,)` or `(m, c)`; None stands for ones.
        like: a tensor.
        size: number of rows of a part; None stands for :data:`CHUNK`.
    """
    size = size or CHUNK
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        scores = moved(rows[part], like.device).to(like.dtype)
        own = ones_like_rows(scores) if weights is None else moved(weights[part], like.device)
        yield scores, own


def gram(kernel: Kernel, a: Tensor, b: Tensor) -> Tensor:
    """Return the Gram matrix `(m, n)` in :func:`total_dtype`, exact at distance zero if `a` is `b`."""
    left = Sample(a)
    pairs = Pairs(left, left if a is b else Sample(b), distinct=False, same=a is b)
    return sum_of_gram_matrices(kernel._summands(), pairs).to(total_dtype(a.device))


def values_within(kernel: Kernel, rows: Tensor) -> Tensor:
    """Return the kernel values `k(r, r)` `(m,)` of rows with themselves, in :func:`total_dtype`."""
    summands = kernel._summands()
    if all(isinstance(summand, RadialSummand) for summand in summands):
        one = rows[:1].to(working_dtype(rows))
        return gram(kernel, one, one).view(1).expand(len(rows))
    blocks = (rows[start : start + BLOCK].to(working_dtype(rows)) for start in range(0, len(rows), BLOCK))
    return torch.cat([gram(kernel, block, block).diagonal() for block in blocks])


def weighted_values(
    kernel: Kernel, points: Tensor, rows: Tensor, weights: Tensor | None, *, divided: bool = False
) -> Tensor:
    """Return the sums `(p,)` of `w k(p, r)` over rows in any dtype and on any device, in :func:`total_dtype`.

    Args:
        kernel: the kernel.
        points: points `(p, d)`.
        rows: rows `(m, d)`.
        weights: weights `(m,)`; None stands for ones.
        divided: whether the rows of all processes belong to the sums.
    """
    wide = points.to(working_dtype(points, rows))

    def parts() -> Iterator[tuple[Tensor, Tensor]]:
        return chunks(rows, weights, wide)

    def with_gradient(points: Tensor) -> tuple[Tensor, Tensor]:
        values, gradients = values_and_gradients(kernel, points, parts())
        return values.unsqueeze(1), gradients

    together = with_gradient if is_fast(kernel) else None
    terms = _terms(kernel, parts, lambda _, own: own.unsqueeze(1))
    return sum_of_terms(terms, [wide], divided=divided, with_gradient=together)[0][:, 0]


def weighted_sums(
    kernel: Kernel, points: Tensor, rows: Tensor, weights: Tensor | None, *, divided: bool = False
) -> tuple[Tensor, Tensor]:
    """Return :func:`weighted_values`, and the sums `(p, d)` of `w k(p, r) r`."""

    def coefficients(part: Tensor, own: Tensor) -> Tensor:
        column = own.unsqueeze(1)
        return torch.cat([column, column * part], 1)

    wide = points.to(working_dtype(points, rows))
    (found,) = sum_of_terms(_terms(kernel, lambda: chunks(rows, weights, wide), coefficients), [wide], divided=divided)
    return found[:, 0], found[:, 1:]


def weighted_by_rows(kernel: Kernel, points: Tensor, rows: Tensor, coefficients: Tensor) -> Tensor:
    """Return the sums `(p, c)` of `k(p, r) c` over rows, each with its coefficients `(m, c)`."""
    wide = points.to(working_dtype(points, rows))
    terms = _terms(kernel, lambda: chunks(rows, coefficients, wide), lambda _, own: own)
    return sum_of_terms(terms, [wide], divided=False)[0]


def sum_between_different(kernel: Kernel, rows: Tensor, weights: Tensor) -> Tensor:
    """Return the sum of `w_i w_j k(r_i, r_j)` over all pairs with `j != i`, each pair computed once."""
    total = torch.zeros_like(weights[:1]).sum()
    like = torch.empty(0, dtype=working_dtype(rows), device=rows.device)
    for start in range(0, len(rows), CHUNK):
        ((part, own),) = chunks(rows[start : start + CHUNK], weights[start : start + CHUNK], like)
        points = part.unsqueeze(0)
        total += own @ kernel_products(points, points, own.view(1, -1, 1), kernel, distinct=True)[0, :, 0]
        rest = slice(start + CHUNK, None)
        if len(rows[rest]):
            total += 2 * own @ weighted_values(kernel, part, rows[rest], weights[rest])
    return total


def _terms(kernel: Kernel, parts: Parts, coefficients: Callable[[Tensor, Tensor], Tensor]) -> Terms:
    """Return the terms of sums over parts, given the coefficients `(m, c)` of the rows and weights of a part."""

    def terms() -> Iterator[Term]:
        for part, own in parts():
            yield partial(_of_part, kernel, part.unsqueeze(0), coefficients(part, own).unsqueeze(0))

    return terms


def _of_part(kernel: Kernel, part: Tensor, coefficients: Tensor, points: Tensor) -> tuple[Tensor]:
    return (kernel_products(points.unsqueeze(0), part, coefficients, kernel)[0],)
