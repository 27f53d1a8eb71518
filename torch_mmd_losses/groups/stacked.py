"""MMD^2 of many small groups with its gradients, from one matrix of squared distances for each group.

Real and fake scores of a group are stacked, so that the three parts of MMD^2 are blocks of one matrix. Groups are
evaluated in chunks that stay in the cache, by products of all matrices of a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_mmd_losses.groups.call import Plan, Tensors, chunks, empty_gradients, parts, zeros
from torch_mmd_losses.groups.stacked_distances import StackedDistances, stacked_distances
from torch_mmd_losses.kernels.contract import ValueAndSlope
from torch_mmd_losses.kernels.summands import values_and_slopes, worst_conditioning
from torch_mmd_losses.pairs.dense import pair_weights
from torch_mmd_losses.pairs.objective import MMD2
from torch_mmd_losses.pairs.tile_distances import differences_weighted
from torch_mmd_losses.precision import total_dtype


def values_and_gradients(plan: Plan, tensors: Tensors, wanted: Sequence[bool]) -> tuple[Tensor, list[Tensor | None]]:
    """Return the value of each group, from the kernels of the distance, and the gradients of the sum of the values.

    Args:
        plan: the call.
        tensors: its tensors.
        wanted: for each tensor, whether its gradient is wanted.

    Returns:
        Values `(G,)` in :func:`total_dtype`, and for each tensor its gradient, or None.
    """
    results = [zeros(tensors), *empty_gradients(tensors, wanted)]
    conditioning = worst_conditioning(plan.radial, tensors.real)
    for groups in chunks(tensors):
        chunk = tensors.of(groups)
        for distances in stacked_distances(chunk.real, chunk.fake, chunk.scale, conditioning):
            chosen = distances.groups
            found = _of_some_groups(plan, chunk if chosen is None else chunk.of(chosen), distances, wanted)
            for whole, part in zip(results, found, strict=True):
                if whole is not None and part is not None:
                    _write(whole[groups], part.to(whole.dtype), chosen, distances.kept)
    return results[0], results[1:]  # type: ignore[return-value]


def _write(whole: Tensor, part: Tensor, groups: Tensor | None, kept: Tensor | None) -> None:
    """Write results of some groups into those of all, but only the kept ones."""
    if kept is not None:
        groups, part = kept if groups is None else groups[kept], part[kept]
    if groups is None:
        whole.copy_(part)
    else:
        whole[groups] = part


def _of_some_groups(
    plan: Plan, tensors: Tensors, distances: StackedDistances, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """Return the values, and the gradient with respect to each tensor or None."""
    sq_dist, scale = distances.sq_dist, tensors.scale
    kept = sq_dist.clone() if wanted[2] else None
    mapped = values_and_slopes(
        plan.radial, sq_dist, None, dtype=tensors.real.dtype, keep=False, in_float64=distances.wide
    )
    value, to_weights = _value(plan, tensors, mapped.value, any(wanted[3:]))
    along = torch.zeros_like(value)
    pulls: list[Tensor | None] = [None, None]
    for side in range(2):
        if wanted[side] or kept is not None:
            rows = tensors.rows(side)
            pull = _pull(plan, tensors, mapped, side)
            if kept is not None:
                along += (pull * kept[:, rows]).sum(2).sum(1, dtype=along.dtype)
            if wanted[side]:
                pulls[side] = _gradient(pull, distances, scale, rows)
    to_scale = None if kept is None or scale is None else along * -2 / scale.to(along.dtype)
    return [value, *pulls, to_scale, *to_weights]


def _value(plan: Plan, tensors: Tensors, gram: Tensor, with_gradients: bool) -> tuple[Tensor, Sequence[Tensor | None]]:
    """Return the values `(g,)`, and the gradients with respect to the weights and to the factors of the sums within.

    Args:
        plan: the call.
        tensors: its tensors.
        gram: kernel values `(g, m + n, m + n)`.
        with_gradients: whether the gradients are wanted.
    """

    def row_sums(a: int, b: int) -> Tensor:
        block, weights = gram[:, tensors.rows(a), tensors.rows(b)], tensors.weights()[b]
        if weights is None:
            return block.sum(2).to(value.dtype)
        return (block @ weights.to(gram.dtype).unsqueeze(2)).squeeze(2).to(value.dtype)

    value, sums, totals = zeros(tensors), {}, {}
    for part in parts(tensors, plan.estimator):
        a, b = part.a, part.b
        if part.distinct:
            gram[:, tensors.rows(a), tensors.rows(b)].diagonal(dim1=1, dim2=2).zero_()
        sums[a, b] = row_sums(a, b)
        weights, within = tensors.weights()[a], tensors.within()[a] if part.is_within else None
        totals[a, b] = (sums[a, b] if weights is None else weights * sums[a, b]).sum(1)
        value.add_(totals[a, b] if within is None else within * totals[a, b], alpha=part.factor)
    if not with_gradients:
        return value, [None] * 4
    sums[1, 0] = row_sums(1, 0)
    towards = []
    for side, within in enumerate(tensors.within()):
        own = sums[side, side] if within is None else within.unsqueeze(1) * sums[side, side]
        towards.append(2 * (own - sums[side, 1 - side]))
    return value, [*towards, totals[0, 0], totals[1, 1]]


def _pull(plan: Plan, tensors: Tensors, mapped: ValueAndSlope, side: int) -> Tensor:
    """Return the derivatives of the value with respect to the squared distances of one sample's scores from all.

    The derivatives are those with respect to the distances in units of the scale, `(g, m, m + n)` for real scores.
    """
    rows = tensors.rows(side)
    weights = tensors.weights()
    if weights[0] is None or weights[1] is None:
        sizes = tensors.real.shape[1], tensors.fake.shape[1]
        omega, _, scale = pair_weights(*sizes, MMD2, plan.estimator, mapped.slope.dtype, mapped.slope.device)
        return (mapped.slope[:, rows] * omega[rows]).mul_(mapped.rate * scale)
    signed = torch.cat([weights[0], -weights[1]], 1).to(mapped.slope.dtype)
    pull = (mapped.slope[:, rows] * signed.unsqueeze(1)).mul_(signed[:, rows, None] * mapped.rate)
    within = tensors.within()[side]
    if within is not None:
        pull[:, :, rows].mul_(within.to(pull.dtype).view(-1, 1, 1))
    return pull


def _gradient(pull: Tensor, distances: StackedDistances, scale: Tensor | None, rows: slice) -> Tensor:
    """Return the gradient with respect to one sample, given the derivatives with respect to the squared distances.

    It is `4 sum_j pull_ij (z_i - z_j)`: up to its sign, the graph Laplacian of the derivatives times the scores.
    """
    stack = distances.stack
    pull.mul_(-4)
    if scale is not None:
        pull.div_(scale.to(total_dtype(scale.device)).square().to(pull.dtype).view(-1, 1, 1))
    if distances.far:
        return differences_weighted(pull, stack[:, rows], stack)
    near = distances.near_pairs and distances.near_pairs.of_rows(rows)
    apart = None if near is None else near.taken_from_(pull)
    pull.diagonal(rows.start, 1, 2).sub_(pull.sum(2))
    found = pull.to(stack.dtype) @ stack
    if near is not None and apart is not None:
        near.add_displacements_(found, apart)
    return found
