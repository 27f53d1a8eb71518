"""The pairs behind the losses, as blocks of pairs and what each of them counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from torch_mmd_losses.distances import Pairs, Sample, count, total_dtype
from torch_mmd_losses.pairs.tiled import Block
from torch_mmd_losses.types import Estimator, Group


class Part(NamedTuple):
    """A block of pairs in the mean kernel value of a group.

    Attributes:
        group: which samples the pairs are made of.
        a: index of the scores that are the rows of the block.
        b: index of the scores that are its columns.
        block: the pairs.
        pairs: of how many pairs the mean is taken, those of other parts with them.
        value: how often the block counts in the mean.
        gradient: how often its gradients count.
    """

    group: Group
    a: int
    b: int
    block: Block
    pairs: int
    value: float = 1.0
    gradient: float = 1.0

    def pairs_of(self, a: Sample, b: Sample, row: int = 0, column: int = 0) -> Pairs:
        """Return the pairs of scores of this block that start at a row and a column of it."""
        block = self.block
        return Pairs(a, b, self.group, distinct=block.distinct, same=block.same, shift=block.shift + row - column)


class Scope(Protocol):
    """Which samples the losses are of: those at hand, or those of all processes."""

    local: bool
    """Whether there are no other samples than those at hand."""

    gradient_factor: float
    """By how much gradients are larger than those of the loss."""

    def samples(self, real: Tensor, fake: Tensor) -> Sequence[Tensor]:
        """Return all sets of scores that there are pairs of, the real and the fake scores at hand first."""

    def directions(self, real: Tensor, fake: Tensor) -> Sequence[Tensor]:
        """Return directions for the gradients of all these sets, given those for the scores at hand."""

    def parts(self, samples: Sequence[Tensor], estimator: Estimator) -> list[Part]:
        """Return the parts of the three means."""

    def totals(self, values: Tensor) -> Tensor:
        """Return the losses, given what the parts at hand contribute to each."""

    def enter(self, scores: Tensor) -> Tensor:
        """Return scores at hand for use by autograd, which then puts its results through :meth:`losses`."""

    def losses(self, contributions: Sequence[tuple[Part, Sequence[Tensor]]]) -> tuple[Tensor, ...]:
        """Return the losses with their gradients, given what each part contributes to each."""

    def mean(self, values: Tensor, side: int) -> Tensor:
        """Return the mean of one value for each real (side 0) or fake (side 1) sample, in :func:`total_dtype`."""


class Local:
    """The samples at hand."""

    local = True
    gradient_factor = 1.0

    def samples(self, real: Tensor, fake: Tensor) -> Sequence[Tensor]:
        return real, fake

    def directions(self, real: Tensor, fake: Tensor) -> Sequence[Tensor]:
        return real, fake

    def parts(self, samples: Sequence[Tensor], estimator: Estimator) -> list[Part]:
        within, aligned = estimator != "biased", estimator == "u_statistic"

        def part(group: Group, a: int, b: int, distinct: bool) -> Part:
            block = Block(samples[a], samples[b], 0, distinct=distinct, same=a == b, symmetric=a == b)
            return Part(group, a, b, block, count(len(samples[a]), len(samples[b]), distinct=distinct))

        return [part("real", 0, 0, within), part("cross", 0, 1, aligned), part("fake", 1, 1, within)]

    def totals(self, values: Tensor) -> Tensor:
        return values

    def enter(self, scores: Tensor) -> Tensor:
        return scores

    def losses(self, contributions: Sequence[tuple[Part, Sequence[Tensor]]]) -> tuple[Tensor, ...]:
        rows = zip(*(values for _, values in contributions), strict=True)
        return tuple(torch.stack(row).sum() for row in rows)

    def mean(self, values: Tensor, side: int) -> Tensor:
        return values.mean(dtype=total_dtype(values.device))


LOCAL = Local()
