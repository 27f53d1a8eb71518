"""Losses from whole Gram matrices, differentiated by autograd."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_mmd_losses.distances import Pairs, Sample
from torch_mmd_losses.hand_written_gradients import with_graph
from torch_mmd_losses.kernels.contract import UNBOUNDED
from torch_mmd_losses.kernels.summands import GramSummand, RadialSummand, Summand, gram_matrix, may_be_constant
from torch_mmd_losses.pairs.batch import WeightedBlock
from torch_mmd_losses.pairs.objective import Objective
from torch_mmd_losses.pairs.plan import Plan
from torch_mmd_losses.precision import total_dtype
from torch_mmd_losses.types import Bounds, Group


def values(plan: Plan, summands: Sequence[Summand], real: Tensor, fake: Tensor) -> tuple[Tensor, ...]:
    """Return the contribution of some summands to each objective, scalars in :func:`total_dtype`."""
    batch = plan.batch
    sets = batch.samples(batch.enter(real), batch.enter(fake))
    samples = [Sample(scores) for scores in sets]
    contributions: list[tuple[WeightedBlock, list[Tensor]]] = []
    for block in batch.blocks(sets, plan.estimator):
        pairs = block.pairs_of(samples[block.a], samples[block.b])
        contributions.append((block, [_contribution(summands, block, pairs, each) for each in plan.objectives]))
    elsewhere = may_be_constant(summands)
    return tuple(with_graph(value, real, fake, may_lead_elsewhere=elsewhere) for value in batch.combine(contributions))


def pair_sum(summand: Summand, pairs: Pairs, group: Group, bounds: Bounds) -> Tensor:
    """Return the sum over pairs of a group of a summand without its factor, a scalar in :func:`total_dtype`."""
    if isinstance(summand, GramSummand) and summand.function.pair_sum is not None:
        return summand.function.pair_sum(pairs.a, pairs.b, pairs.shift if pairs.distinct else None)
    limits = summand.profile.limits(group, bounds) if isinstance(summand, RadialSummand) else UNBOUNDED
    return pairs.total(gram_matrix(summand, pairs, limits))


def _contribution(summands: Sequence[Summand], block: WeightedBlock, pairs: Pairs, objective: Objective) -> Tensor:
    weight = getattr(objective.weights, block.group) / block.pairs
    if not weight:
        return pairs.a.scores.new_zeros((), dtype=total_dtype(pairs.a.scores.device))
    sums = [summand.factor * pair_sum(summand, pairs, block.group, objective.bounds) for summand in summands]
    return weight * torch.stack(sums).sum()
