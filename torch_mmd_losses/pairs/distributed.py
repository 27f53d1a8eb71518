"""The batch of all processes of a distributed job as the samples of a loss.

A process gathers the scores of all others once and looks at the pairs of its own rows with all columns, tile by tile:
the work for pairs is one share of the whole, and its part of the gradient is complete without another message. What it
adds to the value goes into one sum over all processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.distances import count, total_dtype
from torch_mmd_losses.pairs.batch import Part
from torch_mmd_losses.pairs.tiled import Block
from torch_mmd_losses.types import Estimator, Group

REFUSED = -1
"""Stands for the number of scores in a process that does not take part."""


def refuse(scores: Sequence[object]) -> None:
    """Tell the other processes, which are about to gather scores, that those of this one are no good."""
    device = next((x.device for x in scores if isinstance(x, Tensor)), torch.device("cpu"))
    own = torch.full((4,), REFUSED, device=device)
    dist.all_gather([torch.empty_like(own) for _ in range(dist.get_world_size())], own)


class Global:
    """The samples of all processes of the default group; one object for each loss that is computed."""

    local = False

    def __init__(self, real: Tensor, fake: Tensor) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        # Gradients of parameters are averaged over processes, as DistributedDataParallel does, not added up.
        self.gradient_factor = float(self.world)
        self.sizes = self._gather_sizes(real, fake)
        self.everything = self._gather(real, fake)

    def samples(self, real: Tensor, fake: Tensor) -> Sequence[Tensor]:
        """Return the scores at hand, and all real and all fake scores in the order of the processes."""
        return real, fake, *self.everything

    def directions(self, real: Tensor, fake: Tensor) -> Sequence[Tensor]:
        """Return directions for the gradients of all samples, given those for the samples at hand."""
        return real, fake, *self._gather(real, fake)

    def _gather(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
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

    def parts(self, samples: Sequence[Tensor], estimator: Estimator) -> list[Part]:
        """Return the pairs of scores at hand with all scores."""
        m, n = len(samples[2]), len(samples[3])
        checks.sample_sizes(m, n, estimator)
        within, aligned = estimator != "biased", estimator == "u_statistic"
        starts = [sum(size[side] for size in self.sizes[: self.rank]) for side in range(2)]

        def part(group: Group, a: int, b: int, distinct: bool, value: float, gradient: float) -> Part:
            block = Block(samples[a], samples[b], starts[a], distinct=distinct, same=b == a + 2, symmetric=False)
            rows, columns = (m, n)[a], (m, n)[b - 2]
            return Part(group, a, b, block, count(rows, columns, distinct=distinct), value, gradient)

        # A pair within a sample has a row at hand twice, once in either order, and rows get both gradients here; a pair
        # of the cross group is seen by the process of the real score and by that of the fake one: one of them counts.
        return [
            part("real", 0, 2, within, value=1, gradient=2),
            part("cross", 0, 3, aligned, value=1, gradient=1),
            part("cross", 1, 2, aligned, value=0, gradient=1),
            part("fake", 1, 3, within, value=1, gradient=2),
        ]

    def totals(self, values: Tensor) -> Tensor:
        """Return the sums over all processes."""
        dist.all_reduce(values)
        return values

    def enter(self, scores: Tensor) -> Tensor:
        """Return scores that get twice the gradient, which :meth:`losses` halves for everything else."""
        return cast(Tensor, _Twice.apply(scores))  # type: ignore[no-untyped-call]

    def losses(self, contributions: Sequence[tuple[Part, Sequence[Tensor]]]) -> tuple[Tensor, ...]:
        """Return the losses with the gradients for the scores and the kernel at hand.

        Rows get twice what a pair adds to the loss, since only one of its two scores is a row; parameters of a kernel
        get it once.
        """
        values, pulls = [], []
        for row in zip(*(added for _, added in contributions), strict=True):
            shares = list(zip((part for part, _ in contributions), row, strict=True))
            values.append(torch.stack([part.value * added.detach() for part, added in shares]).sum())
            pulls.append(torch.stack([part.gradient / 2 * added for part, added in shares]).sum())
        totals = self.totals(torch.stack(values))
        return tuple(
            value + self.gradient_factor * (pull - pull.detach()) for value, pull in zip(totals, pulls, strict=True)
        )

    def mean(self, values: Tensor, side: int) -> Tensor:
        """Return the mean over the samples of all processes, with the gradient for those at hand."""
        own = values.sum(dtype=total_dtype(values.device))
        total = self.totals(own.detach().clone())
        return (total + self.gradient_factor * (own - own.detach())) / sum(size[side] for size in self.sizes)


class _Twice(torch.autograd.Function):
    """The identity with twice the gradient; only once, because other processes' scores are constants here."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:  # noqa: ANN401
        return scores.view_as(scores)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        return 2 * gradient
