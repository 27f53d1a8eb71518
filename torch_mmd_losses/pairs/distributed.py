"""The joint batch of all processes of a distributed job.

Each process gathers the scores of all processes once, and evaluates the pairs of its own scores with all scores, tile
by tile. The pairs are thus divided between the processes, and the gradients with respect to the local scores need no
further communication. The contributions to the value are added over the processes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.pairs.batch import WeightedBlock
from torch_mmd_losses.pairs.objective import GroupOfPairs, groups_of_pairs
from torch_mmd_losses.pairs.tiles import Block
from torch_mmd_losses.precision import total_dtype
from torch_mmd_losses.types import Estimator

REFUSED = -1
"""A process that refuses its arguments sends this number in place of the number of scores."""


def refuse(scores: Sequence[object]) -> None:
    """Tell the other processes, which are about to gather scores, that this process refuses its own."""
    device = next((x.device for x in scores if isinstance(x, Tensor) and not x.is_meta), torch.device("cpu"))
    own = torch.full((4,), REFUSED, device=device)
    dist.all_gather([torch.empty_like(own) for _ in range(dist.get_world_size())], own)


class GlobalBatch:
    """The samples of all processes of the default group. Each computation of a loss creates a new object."""

    is_local = False

    def __init__(self, real: Tensor, fake: Tensor) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        # DistributedDataParallel averages the gradients of parameters over the processes; it does not add them.
        self.gradient_factor = float(self.world)
        self.sizes = self._gather_sizes(real, fake)
        self.everything = self._gather_scores(real, fake)

    def changed(self, change: Callable[[Tensor], Tensor]) -> GlobalBatch:
        """Return the same batch with a function applied to the scores of all processes."""
        changed = copy.copy(self)
        all_real, all_fake = self.everything
        changed.everything = change(all_real), change(all_fake)
        return changed

    def samples(self, real: Tensor, fake: Tensor) -> Sequence[Tensor]:
        """Return the local scores, then all real and all fake scores in the order of the processes."""
        return real, fake, *self.everything

    def gather(self, real: Tensor, fake: Tensor) -> Sequence[Tensor]:
        """Return one tensor for each sample, shaped like its scores: local samples, all real and all fake samples."""
        return real, fake, *self._gather_scores(real, fake)

    def _gather_scores(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        longest = max(m + n for m, n in self.sizes)
        own = torch.cat([real.detach(), fake.detach(), real.new_empty(longest - len(real) - len(fake), real.shape[1])])
        everything = own.new_empty(self.world, longest, own.shape[1])
        dist.all_gather(list(everything.unbind()), own)
        all_real = torch.cat([scores[:m] for scores, (m, _) in zip(everything, self.sizes, strict=True)])
        all_fake = torch.cat([scores[m : m + n] for scores, (m, n) in zip(everything, self.sizes, strict=True)])
        return all_real, all_fake

    def _gather_sizes(self, real: Tensor, fake: Tensor) -> list[list[int]]:
        own = torch.tensor([len(real), len(fake), real.shape[1], real.dtype.itemsize], device=real.device)
        everything = own.new_empty(self.world, len(own))
        dist.all_gather(list(everything.unbind()), own)
        sizes: list[list[int]] = everything.tolist()
        refused = [rank for rank, (m, *_) in enumerate(sizes) if m == REFUSED]
        if refused:
            raise ValueError(f"real, fake: refused in process {', '.join(map(str, refused))}, whose error says why")
        if len({tuple(kind) for _, _, *kind in sizes}) > 1:
            raise ValueError(
                "real, fake: expected the same score dimension d and dtype in every process, got "
                + ", ".join(f"d={d} with {8 * itemsize} bits" for _, _, d, itemsize in sizes)
            )
        return [size[:2] for size in sizes]

    def blocks(self, samples: Sequence[Tensor], estimator: Estimator) -> list[WeightedBlock]:
        """Return the blocks of local scores with all scores."""
        m, n = len(samples[2]), len(samples[3])
        checks.sample_sizes(m, n, estimator)
        real, cross, fake = groups_of_pairs(m, n, estimator)
        starts = [sum(size[side] for size in self.sizes[: self.rank]) for side in range(2)]

        def block(group: GroupOfPairs, a: int, b: int, value: float, gradient: float) -> WeightedBlock:
            pairs = Block(samples[a], samples[b], starts[a], distinct=group.distinct, same=b == a + 2, symmetric=False)
            return WeightedBlock(group.group, a, b, pairs, group.pairs, value, gradient, gradient / 2)

        # Over all processes, a pair within a sample occurs in both orders, each with a gradient for its row, so a local
        # score gets both gradients here. A cross pair is evaluated by the process of its real score and by the process
        # of its fake score, and counts once. Parameters of a kernel get the gradient of each pair once.
        return [
            block(real, 0, 2, value=1, gradient=2),
            block(cross, 0, 3, value=1, gradient=1),
            block(cross, 1, 2, value=0, gradient=1),
            block(fake, 1, 3, value=1, gradient=2),
        ]

    def totals(self, values: Tensor) -> Tensor:
        """Return the sums over all processes."""
        dist.all_reduce(values)
        return values

    def enter(self, scores: Tensor) -> Tensor:
        """Return scores whose gradient is doubled; :meth:`combine` halves all gradients."""
        return cast(Tensor, _DoubledGradient.apply(scores))  # type: ignore[no-untyped-call]

    def combine(self, contributions: Sequence[tuple[WeightedBlock, Sequence[Tensor]]]) -> tuple[Tensor, ...]:
        """Return the losses with the gradients for the local scores and the local kernel.

        Only one score of a pair is local, and it gets twice the gradient of the pair's contribution. Parameters of a
        kernel get this gradient once.
        """
        values, pulls = [], []
        for row in zip(*(added for _, added in contributions), strict=True):
            shares = list(zip((block for block, _ in contributions), row, strict=True))
            values.append(torch.stack([block.value_weight * added.detach() for block, added in shares]).sum())
            pulls.append(torch.stack([block.parameter_weight * added for block, added in shares]).sum())
        totals = self.totals(torch.stack(values))
        return tuple(
            value + self.gradient_factor * (pull - pull.detach()) for value, pull in zip(totals, pulls, strict=True)
        )

    def mean(self, values: Tensor, sample: int) -> Tensor:
        """Return the mean over all processes, with the gradient for the local values."""
        own = values.sum(dtype=total_dtype(values.device))
        total = self.totals(own.detach().clone())
        return (total + self.gradient_factor * (own - own.detach())) / sum(size[sample] for size in self.sizes)


class _DoubledGradient(torch.autograd.Function):
    """The identity with twice the gradient; differentiable once, because other processes' scores are constants."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:  # noqa: ANN401
        return scores.view_as(scores)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        return 2 * gradient
