"""The batch that a loss is computed on, and its blocks of pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from torch_mmd_losses.distances import Pairs, Sample
from torch_mmd_losses.pairs.objective import groups_of_pairs
from torch_mmd_losses.pairs.tiles import Block
from torch_mmd_losses.precision import total_dtype
from torch_mmd_losses.types import Estimator, Group


class WeightedBlock(NamedTuple):
    """A block of pairs and its weight in the mean kernel value of a group.

    Attributes:
        group: the group that the pairs belong to.
        a: index of the sample whose scores are the rows of the block.
        b: index of the sample whose scores are the columns of the block.
        block: the pairs.
        pairs: number of pairs in the mean, including those of other blocks.
        value_weight: weight of the block's sum in the value of the mean.
        gradient_weight: weight of the block's gradients with respect to scores.
        parameter_weight: weight of the block's gradients with respect to parameters of the kernel.
    """

    group: Group
    a: int
    b: int
    block: Block
    pairs: int
    value_weight: float = 1.0
    gradient_weight: float = 1.0
    parameter_weight: float = 1.0

    def pairs_of(self, a: Sample, b: Sample, row: int = 0, column: int = 0) -> Pairs:
        """Return the pairs of a tile, or of the whole block.

        Args:
            a: the scores in the rows of the tile.
            b: the scores in the columns of the tile; the same object as `a` if they are the same scores.
            row: first row of the tile.
            column: first column of the tile.
        """
        block = self.block
        return Pairs(a, b, distinct=block.distinct, same=block.same, shift=block.shift + row - column)


class Batch(Protocol):
    """The samples that a loss is computed on: those of this process, or those of all processes together.

    Scores of this process are called local. Samples are numbered: local real scores are sample 0, local fake scores
    sample 1.
    """

    is_local: bool
    """Whether all samples are local."""

    gradient_factor: float
    """Factor between the gradients that a process returns and those of the loss."""

    def changed(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return the same batch with a function applied to the scores of all samples, as to the local scores."""

    def samples(self, real: Tensor, fake: Tensor) -> Sequence[Tensor]:
        """Return the scores of all samples, given the local scores."""

    def gather(self, real: Tensor, fake: Tensor) -> Sequence[Tensor]:
        """Return one tensor for each sample, shaped like its scores, given the tensors for the local samples."""

    def blocks(self, samples: Sequence[Tensor], estimator: Estimator) -> list[WeightedBlock]:
        """Return the blocks of pairs that this process evaluates."""

    def totals(self, values: Tensor) -> Tensor:
        """Return the losses, given the contributions of this process."""

    def enter(self, scores: Tensor) -> Tensor:
        """Return the local scores with the factor on their gradients that :meth:`combine` expects."""

    def combine(self, contributions: Sequence[tuple[WeightedBlock, Sequence[Tensor]]]) -> tuple[Tensor, ...]:
        """Return the losses with their gradients, given the contributions of each block to each loss."""

    def mean(self, values: Tensor, sample: int) -> Tensor:
        """Return the mean of one value for each score of a local sample, in :func:`total_dtype`."""


class LocalBatch:
    """The samples of this process alone."""

    is_local = True
    gradient_factor = 1.0

    def changed(self, change: Callable[[Tensor], Tensor]) -> LocalBatch:
        """Return this batch."""
        return self

    def samples(self, real: Tensor, fake: Tensor) -> Sequence[Tensor]:
        """Return the scores."""
        return real, fake

    def gather(self, real: Tensor, fake: Tensor) -> Sequence[Tensor]:
        """Return the arguments."""
        return real, fake

    def blocks(self, samples: Sequence[Tensor], estimator: Estimator) -> list[WeightedBlock]:
        """Return one block for each group of pairs."""
        blocks = []
        for group, a, b, distinct, count in groups_of_pairs(len(samples[0]), len(samples[1]), estimator):
            pairs = Block(samples[a], samples[b], 0, distinct=distinct, same=a == b, symmetric=a == b)
            blocks.append(WeightedBlock(group, a, b, pairs, count))
        return blocks

    def totals(self, values: Tensor) -> Tensor:
        """Return the values."""
        return values

    def enter(self, scores: Tensor) -> Tensor:
        """Return the scores."""
        return scores

    def combine(self, contributions: Sequence[tuple[WeightedBlock, Sequence[Tensor]]]) -> tuple[Tensor, ...]:
        """Return the sum of the contributions to each loss."""
        rows = zip(*(values for _, values in contributions), strict=True)
        return tuple(torch.stack(row).sum() for row in rows)

    def mean(self, values: Tensor, sample: int) -> Tensor:
        """Return the mean."""
        return values.mean(dtype=total_dtype(values.device))


LOCAL = LocalBatch()
