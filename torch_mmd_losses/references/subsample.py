"""A random choice among rows that arrive in batches, which does not depend on their order or number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses.references.batches import Rows, ones_like_rows


class Chosen(NamedTuple):
    """Rows with the smallest random keys: each row so far is among them with the same probability."""

    scores: Tensor
    weights: Tensor
    keys: Tensor

    def extended(self, rows: Rows, most: int, generator: torch.Generator) -> Chosen:
        """Return the choice of at most `most` rows among these and others."""
        keys = torch.rand(len(rows.scores), dtype=torch.float64, device="cpu", generator=generator)
        every = torch.cat([self.keys, keys])
        kept = every.topk(min(most, len(every)), largest=False).indices.sort().values
        old, new = kept[kept < len(self.keys)], kept[kept >= len(self.keys)] - len(self.keys)
        weights = ones_like_rows(rows.scores) if rows.weights is None else rows.weights
        there = rows.scores.device

        def joined(before: Tensor, after: Tensor) -> Tensor:
            return torch.cat([before[old.to(before.device)], after[new.to(there)]])

        return Chosen(joined(self.scores, rows.scores), joined(self.weights, weights), every[kept])

    @classmethod
    def none(cls, like: Rows) -> Chosen:
        """Return an empty choice."""
        weights = ones_like_rows(like.scores[:0])
        return cls(like.scores[:0], weights, torch.empty(0, dtype=torch.float64, device="cpu"))


def choose(batches: Iterable[Rows], most: int, generator: torch.Generator) -> Chosen:
    """Return a random choice of at most `most` rows of all batches, each with the same probability."""
    remaining = iter(batches)
    first = next(remaining)
    chosen = Chosen.none(first).extended(first, most, generator)
    for rows in remaining:
        chosen = chosen.extended(rows, most, generator)
    return chosen


def seeded(generator: torch.Generator | None) -> int:
    """Return a random seed."""
    place = "cpu" if generator is None else generator.device
    return int(torch.randint(2**62, (), generator=generator, device=place))
