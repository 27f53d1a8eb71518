"""MMD^2 of groups, from pieces that autograd differentiates.

It is used for kernels that are not functions of the distance, for trained kernels, under the compiler and in function
transforms, and for second derivatives. The derivatives of a sum over pieces are computed piece by piece, so memory does
not grow with the number of pairs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from torch_mmd_losses import hand_written_gradients
from torch_mmd_losses.distances import Sample
from torch_mmd_losses.groups.call import Piece, Plan, Tensors, parts, pieces, whole_parts, zero_gradients, zeros
from torch_mmd_losses.kernels.summands import (
    GramSummand,
    Summand,
    by_kind,
    gram_matrix,
    may_be_constant,
    needs_float64,
    sum_of_profiles,
    takes_groups,
    worst_conditioning,
)
from torch_mmd_losses.pairs.group_pairs import GroupPairs, distances_of_groups, is_readable, pairs_within_groups
from torch_mmd_losses.precision import total_dtype


class _Slot(NamedTuple):
    """A part of one of the tensors of a call: which of :class:`Tensors`, and its place in that tensor."""

    which: int
    place: tuple[slice, ...]


Inputs = dict[str, Tensor]
"""The parts of the tensors that a piece depends on, by their role in the piece."""


def values(summands: Sequence[Summand], plan: Plan, tensors: Tensors) -> Tensor:
    """Return the value of each group `(G,)`, from whole Gram matrices, differentiably."""
    total = zeros(tensors)
    for piece in whole_parts(tensors, parts(tensors, plan.estimator), slice(None)):
        inputs = {role: _taken(tensors, slot) for role, slot in _slots(tensors, piece).items()}
        total = total + _piece_values(summands, piece, inputs)
    return hand_written_gradients.with_graph(total, *tensors.present(), may_lead_elsewhere=may_be_constant(summands))


def add_values_and_gradients(
    plan: Plan, tensors: Tensors, wanted: Sequence[bool], values: Tensor, gradients: Sequence[Tensor | None]
) -> None:
    """Add the values of the kernels that are not functions of the distance, and the gradients of their sum.

    Args:
        plan: the call.
        tensors: its tensors.
        wanted: for each tensor, whether its gradient is wanted.
        values: the values of the groups.
        gradients: for each tensor its gradient, or None.
    """
    for piece in pieces(tensors, plan):
        slots = _slots(tensors, piece)
        inputs = _leaves(tensors, slots, wanted)
        with torch.enable_grad():
            found = _piece_values(plan.others, piece, inputs)
            total = found.sum()
        values[piece.groups] += found.detach()
        if total.requires_grad:
            leaves = {role: leaf for role, leaf in inputs.items() if leaf.requires_grad}
            _add(gradients, slots, leaves, torch.autograd.grad(total, list(leaves.values()), materialize_grads=True))


def hessian_products(
    plan: Plan, tensors: Tensors, wanted: Sequence[bool], outer: Tensor, along: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Return the derivatives of `<gradient, along>` with respect to the tensors.

    The gradient is that of the sum of `outer * value` over the groups.

    Args:
        plan: the call.
        tensors: its tensors.
        wanted: for each tensor, whether the derivative is wanted.
        outer: a factor for each group `(G,)`.
        along: a direction for the gradient with respect to each tensor; None stands for zero.
    """
    products = zero_gradients(tensors, wanted)
    summands: list[Summand] = [*plan.radial, *plan.others]
    for piece in pieces(tensors, plan):
        slots = _slots(tensors, piece)
        inputs = _leaves(tensors, slots, wanted)
        leaves = {role: leaf for role, leaf in inputs.items() if leaf.requires_grad}
        directions = {role: direction for role in leaves if (direction := along[slots[role].which]) is not None}
        if not directions:
            continue
        with torch.enable_grad():
            total = (outer[piece.groups] * _piece_values(summands, piece, inputs)).sum()
            if not total.requires_grad:
                continue
            chosen = [leaves[role] for role in directions]
            slopes = torch.autograd.grad(total, chosen, create_graph=True, materialize_grads=True)
            steps = [
                (slope * direction[slots[role].place]).sum(dtype=total.dtype)
                for slope, (role, direction) in zip(slopes, directions.items(), strict=True)
            ]
            step = torch.stack(steps).sum()
            if not step.requires_grad:  # the slopes are constants, such as those of a linear kernel in one argument
                continue
            found = torch.autograd.grad(step, list(leaves.values()), materialize_grads=True)
        _add(products, slots, leaves, found)
    return products


def _slots(tensors: Tensors, piece: Piece) -> dict[str, _Slot]:
    """Return the parts of the tensors that a piece depends on."""
    groups, part = piece.groups, piece.part
    rows, columns = (groups, piece.rows), (groups, piece.columns)
    slots = {"a": _Slot(part.a, rows)}
    if not piece.is_square:
        slots["b"] = _Slot(part.b, columns)
    if tensors.scale is not None:
        slots["scale"] = _Slot(2, (groups,))
    if tensors.real_weights is not None:
        slots["weights of a"] = _Slot(3 + part.a, rows)
        if not piece.is_square:
            slots["weights of b"] = _Slot(3 + part.b, columns)
    if part.is_within and tensors.within()[part.a] is not None:
        slots["within"] = _Slot(5 + part.a, (groups,))
    return slots


def _taken(tensors: Tensors, slot: _Slot) -> Tensor:
    return cast(Tensor, tensors[slot.which])[slot.place]


def _leaves(tensors: Tensors, slots: dict[str, _Slot], wanted: Sequence[bool]) -> Inputs:
    """Return the inputs of a piece, each with a separate graph."""
    return {role: _taken(tensors, slot).detach().requires_grad_(wanted[slot.which]) for role, slot in slots.items()}


def _add(targets: Sequence[Tensor | None], slots: dict[str, _Slot], leaves: Inputs, found: Sequence[Tensor]) -> None:
    for role, more in zip(leaves, found, strict=True):
        cast(Tensor, targets[slots[role].which])[slots[role].place].add_(more)  # wanted, because it is a leaf


def _piece_values(summands: Sequence[Summand], piece: Piece, inputs: Inputs) -> Tensor:
    """Return the contribution of a piece to the value of each of its groups, in :func:`total_dtype`, differentiably."""
    a = inputs["a"]
    b, part = inputs.get("b", a), piece.part
    dtype = total_dtype(a.device)
    gram = _gram(summands, a, b, part.is_within, piece, inputs.get("scale"))
    weights = inputs.get("weights of a")
    if part.distinct:
        gram = gram.masked_fill(_equal_indices(piece, a, b), 0)
    if weights is None:
        total = gram.sum(2).sum(1, dtype=dtype)
    else:
        columns = inputs.get("weights of b", weights)
        total = (weights * (gram.to(dtype) @ columns.unsqueeze(2)).squeeze(2)).sum(1)
    within = inputs.get("within")
    return total * (part.factor * piece.times) * (1 if within is None else within)


def _gram(
    summands: Sequence[Summand], a: Tensor, b: Tensor, is_within: bool, piece: Piece, scale: Tensor | None
) -> Tensor:
    """Return the Gram matrices `(g, p, q)` of a piece, in float64 on devices where that is fast."""
    radial, others = by_kind(summands)
    grams = []
    if radial:
        same = _equal_indices(piece, a, b) if is_within else None
        steepness = worst_conditioning(radial, a[0]).steepness if is_readable(a, b) else math.inf
        sq_dist = distances_of_groups(a, b, same, scale, in_float64=needs_float64(radial, a[0]), steepness=steepness)
        grams.append(sum_of_profiles(radial, sq_dist, a.dtype))
    pairs = pairs_within_groups(a, b)
    grams += [summand.factor * _values(summand, pairs) for summand in others]
    return functools.reduce(torch.add, grams)


def _values(summand: GramSummand, pairs: GroupPairs) -> Tensor:
    """Return the Gram matrices `(g, p, q)` of a kernel that is not a function of the distance."""
    if takes_groups(summand):
        return gram_matrix(summand, pairs)
    samples = [Sample(scores) for scores in pairs.a.scores.unbind()]
    columns = samples if pairs.same else [Sample(scores) for scores in pairs.b.scores.unbind()]
    return torch.stack([summand.function.values(x, y) for x, y in zip(samples, columns, strict=True)])


def _equal_indices(piece: Piece, a: Tensor, b: Tensor) -> Tensor:
    """Return a mask `(p, q)` of the pairs of equal index."""
    rows, columns = (torch.arange(scores.shape[1], device=scores.device) for scores in (a, b))
    return rows.unsqueeze(1) + piece.rows.start == columns + piece.columns.start
