"""Sums over the parts of a reference, at points, without a graph that keeps the parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from torch_mmd_losses.hand_written_gradients import GradientByHand, reverse_mode_only
from torch_mmd_losses.pairs.batch import Batch
from torch_mmd_losses.pairs.distributed import REFUSED, GlobalBatch

Term = Callable[..., tuple[Tensor, ...]]
"""A function of tensors with one row for each point, which returns such tensors. A row depends on the same row only."""

Terms = Callable[[], Iterable[Term]]
"""Returns the terms of a sum, one for each part of a reference, created one after another."""


WithGradient = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Returns the only result of a sum, `(p, 1)`, and the gradients `(p, d)` of its entries, given points `(p, d)`."""


def sum_of_terms(
    terms: Terms, rows: Sequence[Tensor], *, divided: bool, with_gradient: WithGradient | None = None
) -> tuple[Tensor, ...]:
    """Return the sums of terms at the rows of this process.

    Derivatives create the terms again, so converted or moved parts of the reference are not kept.

    Args:
        terms: the terms.
        rows: arguments of the terms.
        divided: whether the terms of all processes belong to the sum. Each process then evaluates its own terms at the
            rows of all processes, whose numbers may differ. Each has to differentiate the results equally often.
        with_gradient: computes the sum and its first gradient faster than term by term.
    """
    if divided or reverse_mode_only(*rows):
        return _SumOfTerms.apply(terms, divided, with_gradient, *rows)  # type: ignore[no-untyped-call]
    return _total(terms(), rows)


def _total(terms: Iterable[Term], rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
    remaining = iter(terms)
    totals = next(remaining)(*rows)
    for term in remaining:
        totals = tuple(total + more for total, more in zip(totals, term(*rows), strict=True))
    return totals


class _SumOfTerms(GradientByHand):
    takes_batches = True

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        terms: Terms,
        divided: bool,
        with_gradient: WithGradient | None,
        *rows: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.terms, ctx.divided, ctx.count = terms, divided, len(rows)
        compute: Term = lambda *everything: _total(terms(), everything)  # noqa: E731
        count = None
        if with_gradient is not None and ctx.needs_input_grad[3]:
            compute, count = with_gradient, 1
        found = _over_processes(compute, rows) if divided else compute(*rows)
        ctx.save_for_backward(*rows, *found[count:] if count else ())
        return found[:count]

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        terms, wanted = ctx.terms, ctx.needs_input_grad[3:]
        rows, gradients = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        if gradients and not torch.is_grad_enabled():
            return None, None, None, (outer[0] * gradients[0]).to(rows[0].dtype)

        def pulled() -> Iterator[Term]:
            return (_pulled(term, wanted) for term in terms())

        found = iter(sum_of_terms(pulled, (*rows, *outer), divided=ctx.divided))
        return None, None, None, *(next(found) if want else None for want in wanted)


def _pulled(term: Term, wanted: Sequence[bool]) -> Term:
    """Return the derivatives of `<outer, term>` with respect to the wanted rows, given the rows and then `outer`.

    Each row of them depends only on the same row, too.
    """

    def derivatives(*everything: Tensor) -> tuple[Tensor, ...]:
        traced = torch.is_grad_enabled()
        with torch.enable_grad():
            # If no graph is needed, the inputs must not have one either: `outer` may depend on the rows.
            given = everything[: len(wanted)]
            rows = [x if traced and x.requires_grad else x.detach().requires_grad_() for x in given]
            inputs = [x for x, want in zip(rows, wanted, strict=True) if want]
            outer = everything[len(wanted) :]
            return torch.autograd.grad(term(*rows), inputs, outer, create_graph=traced, materialize_grads=True)

    return derivatives


def _over_processes(compute: Term, rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
    sizes = _sizes(rows[0])
    start = sum(sizes[: dist.get_rank()])
    totals = [total.contiguous() for total in compute(*[_gathered(each, sizes) for each in rows])]
    for total in totals:
        dist.all_reduce(total)
    return tuple(total[start : start + len(rows[0])].clone() for total in totals)


def refuse(rows: object) -> None:
    """Tell the other processes, which are about to gather rows, that this process refuses its own."""
    _exchanged(REFUSED, rows.device if isinstance(rows, Tensor) and not rows.is_meta else torch.device("cpu"))


def _sizes(rows: Tensor) -> list[int]:
    sizes = _exchanged(len(rows), rows.device)
    refused = [rank for rank, size in enumerate(sizes) if size == REFUSED]
    if refused:
        raise ValueError(f"points: refused in process {', '.join(map(str, refused))}, whose error says why")
    return sizes


def _exchanged(number: int, device: torch.device) -> list[int]:
    own = torch.tensor([number], device=device)
    everything = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(everything, own)
    numbers: list[int] = torch.cat(everything).tolist()
    return numbers


def _gathered(rows: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return the rows of all processes, in their order."""
    padded = rows.new_zeros(max(sizes), *rows.shape[1:])
    padded[: len(rows)] = rows.detach()
    everything = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(everything, padded)
    return torch.cat([part[:size] for part, size in zip(everything, sizes, strict=True)])


def mean_of_rows(values: Tensor, batch: Batch) -> tuple[Tensor, int]:
    """Return the mean `(f,)` of the rows for the fake samples of a batch, and the number of its fake samples."""
    own = values.sum(0)
    if not isinstance(batch, GlobalBatch):
        return own / len(values), len(values)
    count = sum(fake for _, fake in batch.sizes)
    total = batch.totals(own.detach().clone())
    return (total + batch.gradient_factor * (own - own.detach())) / count, count
