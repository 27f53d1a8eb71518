"""A call for the MMD^2 of many groups: its tensors, and its blocks of pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses.kernels.summands import GramSummand, RadialSummand
from torch_mmd_losses.pairs.objective import MMD2, groups_of_pairs
from torch_mmd_losses.pairs.tiles import Block, tile_side, tiles
from torch_mmd_losses.precision import total_dtype
from torch_mmd_losses.types import Estimator

TOGETHER_UP_TO = 512
"""Number of real and fake samples of a group up to which one product of many groups is faster than tiles."""

AT_ONCE = {"cpu": 2**18}
"""Kernel values or scores of one chunk of groups: on a CPU 1 MB in float32, which stays in the second-level cache."""

AT_ONCE_ELSEWHERE = 2**26
"""The same on other devices, where only memory limits the size of a chunk."""


class Tensors(NamedTuple):
    """The tensors that MMD^2 is a function of. All have one entry for each group.

    Without weights, the last four are None. `within_real` and `within_fake` are the factors of the sums over pairs
    within a sample; None stands for one.
    """

    real: Tensor
    fake: Tensor
    scale: Tensor | None = None
    real_weights: Tensor | None = None
    fake_weights: Tensor | None = None
    within_real: Tensor | None = None
    within_fake: Tensor | None = None

    def present(self) -> list[Tensor]:
        """Return the tensors that are not None."""
        return [tensor for tensor in self if tensor is not None]

    def of(self, groups: slice | Tensor) -> Tensors:
        """Return the tensors of some groups, given by a slice or by their indices."""
        return Tensors(*(None if tensor is None else tensor[groups] for tensor in self))  # type: ignore[arg-type]

    def rows(self, sample: int) -> slice:
        """Return the rows of a sample, 0 for real and 1 for fake scores, among the stacked scores."""
        m = self.real.shape[1]
        return slice(0, m) if sample == 0 else slice(m, m + self.fake.shape[1])

    def samples(self) -> tuple[Tensor, Tensor]:
        """Return the real and the fake scores."""
        return self.real, self.fake

    def weights(self) -> tuple[Tensor | None, Tensor | None]:
        """Return the weights of real and of fake scores."""
        return self.real_weights, self.fake_weights

    def within(self) -> tuple[Tensor | None, Tensor | None]:
        """Return the factors of the sums within real and within fake scores."""
        return self.within_real, self.within_fake


class Plan(NamedTuple):
    """Everything about a call except its tensors."""

    radial: Sequence[RadialSummand]
    others: Sequence[GramSummand]
    estimator: Estimator
    tile_size: int | None


class Part(NamedTuple):
    """The pairs of two samples of a group: real and real (0, 0), real and fake (0, 1), or fake and fake (1, 1).

    `distinct` leaves out the pairs of equal index, and `factor` multiplies the sum over the pairs.
    """

    a: int
    b: int
    distinct: bool
    factor: float

    @property
    def is_within(self) -> bool:
        """Whether the pairs are those within a sample."""
        return self.a == self.b


def parts(tensors: Tensors, estimator: Estimator) -> list[Part]:
    """Return the three parts of MMD^2.

    With weights, the factors of the sums within are those of the estimator, :attr:`Tensors.within_real` and
    `within_fake`, and not part of the result.
    """
    is_weighted = tensors.real_weights is not None
    groups = groups_of_pairs(tensors.real.shape[1], tensors.fake.shape[1], estimator)
    return [
        Part(a, b, distinct, weight if is_weighted else weight / count)
        for weight, (_, a, b, distinct, count) in zip(MMD2, groups, strict=True)
    ]


class Piece(NamedTuple):
    """Some pairs of a part, in some groups. `times` is 2 if the piece also stands for its transpose."""

    groups: slice
    part: Part
    rows: slice
    columns: slice
    times: int

    @property
    def is_square(self) -> bool:
        """Whether rows and columns are the same scores."""
        return self.part.is_within and self.rows == self.columns


def is_small(tensors: Tensors) -> bool:
    """Return whether the groups are small enough for products of many groups."""
    return tensors.real.shape[1] + tensors.fake.shape[1] <= TOGETHER_UP_TO


def chunks(tensors: Tensors) -> Iterator[slice]:
    """Yield the groups that are evaluated at once, for small groups."""
    count, m, d = tensors.real.shape
    size = m + tensors.fake.shape[1]
    at_once = max(1, AT_ONCE.get(tensors.real.device.type, AT_ONCE_ELSEWHERE) // (size * max(size, d)))
    for start in range(0, count, at_once):
        yield slice(start, min(start + at_once, count))


def pieces(tensors: Tensors, plan: Plan) -> Iterator[Piece]:
    """Yield pieces of bounded size, which together are all pairs: whole parts of small groups, tiles of large ones."""
    three = parts(tensors, plan.estimator)
    if is_small(tensors):
        for groups in chunks(tensors):
            yield from whole_parts(tensors, three, groups)
        return
    side = tile_side(plan.tile_size, tensors.real.device)
    for group in range(tensors.real.shape[0]):
        for part in three:
            a, b = (tensors.samples()[sample][group] for sample in (part.a, part.b))
            for rows, columns in tiles(block(a, b, part), side):
                times = 2 if part.is_within and rows != columns else 1
                yield Piece(slice(group, group + 1), part, rows, columns, times)


def whole_parts(tensors: Tensors, three: Sequence[Part], groups: slice) -> Iterator[Piece]:
    """Yield each part of some groups as one piece."""
    sizes = tensors.real.shape[1], tensors.fake.shape[1]
    for part in three:
        yield Piece(groups, part, slice(0, sizes[part.a]), slice(0, sizes[part.b]), 1)


def block(a: Tensor, b: Tensor, part: Part) -> Block:
    """Return the pairs of a part in one group."""
    return Block(a, b, 0, distinct=part.distinct, same=part.is_within, symmetric=part.is_within)


def empty_gradients(tensors: Tensors, wanted: Sequence[bool]) -> list[Tensor | None]:
    """Return an empty tensor like each tensor whose gradient is wanted."""
    pairs = zip(tensors, wanted, strict=True)
    return [torch.empty_like(tensor) if tensor is not None and want else None for tensor, want in pairs]


def zero_gradients(tensors: Tensors, wanted: Sequence[bool]) -> list[Tensor | None]:
    """Return a tensor of zeros like each tensor whose gradient is wanted."""
    pairs = zip(tensors, wanted, strict=True)
    return [torch.zeros_like(tensor) if tensor is not None and want else None for tensor, want in pairs]


def zeros(tensors: Tensors) -> Tensor:
    """Return a zero for each group, in :func:`total_dtype`."""
    device = tensors.real.device
    return torch.zeros(tensors.real.shape[0], dtype=total_dtype(device), device=device)
