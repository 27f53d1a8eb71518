"""A reference that keeps all rows."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from torch_mmd_losses.devices import moved
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.precision import total_dtype
from torch_mmd_losses.references import deregularised
from torch_mmd_losses.references.batches import Rows, ones_like_rows
from torch_mmd_losses.references.form import Form
from torch_mmd_losses.references.kernel_values import sum_between_different, weighted_sums, weighted_values
from torch_mmd_losses.references.self_terms import estimated_sum

FACTORISED = 2**14
"""Largest number of rows whose kernel matrix is factorised: 2 GB in float64."""

LANDMARKS = 1024
"""Largest number of random rows for the exact part of an estimated self term."""


class AllRows(Form):
    """All rows in their own dtype, and their weights, which are one if none are given.

    Args:
        kernel: the kernel.
        first: the first rows, which are not copied.
        self_rows: number of random rows from whose pairs the self term is estimated; None means all rows.
        seed: seed of their choice.
    """

    rows: Tensor
    weights: Tensor

    def __init__(self, kernel: Kernel, first: Tensor, *, self_rows: int | None, seed: int) -> None:
        super().__init__(kernel, first)
        self.self_rows, self.seed = self_rows, seed
        self.register_buffer("rows", first[:0])
        self.register_buffer("weights", ones_like_rows(first[:0]))

    def add(self, rows: Rows) -> None:
        """Keep the rows."""
        if len(self.weights) or rows.weights is not None:
            weights = ones_like_rows(rows.scores) if rows.weights is None else rows.weights
            self.weights = torch.cat([self._all_weights(), weights.to(self.rows.device)])
        self.rows = torch.cat([self.rows, rows.scores]) if len(self.rows) else rows.scores

    def examples(self) -> Tensor:
        """Return all rows."""
        return self.rows

    def _all_weights(self) -> Tensor:
        return self.weights if len(self.weights) else ones_like_rows(self.rows)

    def _given_weights(self) -> Tensor | None:
        return self.weights if len(self.weights) else None

    def attraction(self, points: Tensor) -> Tensor:
        """Return the mean kernel values, from all pairs."""
        values = weighted_values(self.kernel, points, self.rows, self._given_weights(), divided=self.divided)
        return values / moved(self.weight, points.device)

    def sums(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean kernel values and the mean of `k(p, r) r`, from all pairs."""
        values, vectors = weighted_sums(self.kernel, points, self.rows, self._given_weights(), divided=self.divided)
        weight = moved(self.weight, points.device)
        return values / weight, vectors / weight

    def sum_within(self) -> Tensor:
        """Return the sum over all pairs, or an unbiased estimate from the pairs of some rows."""
        rows, weights = self.rows, self._all_weights()
        if self.self_rows is None or self.self_rows >= len(rows):
            return self.diagonal + sum_between_different(self.kernel, rows, weights)
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(rows), generator=generator).to(rows.device)
        # The landmarks and the rows that estimate the remainder have to be independent for an estimate without bias.
        landmarks, chosen = rows[order[: min(self.self_rows, LANDMARKS)]], self.seed + 1
        try:
            others = estimated_sum(self.kernel, landmarks, Rows(rows, weights), self.self_rows, chosen)
        except ValueError:  # the kernel is not positive definite
            others = self._sum_of_pairs_of(order[: self.self_rows])
        return self.diagonal + others

    def _sum_of_pairs_of(self, chosen: Tensor) -> Tensor:
        count, some = len(self.rows), len(chosen)
        found = sum_between_different(self.kernel, self.rows[chosen], self._all_weights()[chosen])
        return found * (count * (count - 1) / (some * (some - 1)))

    def error_bound(self, fake: Tensor) -> Tensor:
        """Return zero."""
        return fake.new_zeros(())

    def regularised_on(self, device: torch.device, lambda_: float) -> deregularised.Factor:
        """Return the factor of the kernel matrix of all rows."""
        if len(self.rows) > FACTORISED:
            raise ValueError(
                f"real: expected at most {FACTORISED} rows for drmmd2 with kind='exact', which factorises their kernel "
                f"matrix, got {len(self.rows)}; use kind='nystrom'"
            )
        rows = self.rows.to(device, total_dtype(device))
        weights = self._all_weights().to(rows) / self.weight.to(rows)
        return deregularised.of_rows(rows, weights, self.kernel, lambda_)

    def share(self, rank: int, world: int) -> AllRows:
        """Return every `world`-th row, with the totals of all rows."""
        self.mean_within("biased")
        kept = {id(self.rows): self.rows[rank::world].clone(), id(self.weights): self.weights[rank::world].clone()}
        share = copy.deepcopy(self, {**kept, **self._left_out()})
        share.divided = True
        return share
