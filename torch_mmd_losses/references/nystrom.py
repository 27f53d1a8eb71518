"""A reference that keeps landmarks: the mean embedding of the rows, projected onto the span of the landmarks."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from torch_mmd_losses import usage_warnings
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.pairs.batch import LOCAL
from torch_mmd_losses.precision import full_precision, total_dtype
from torch_mmd_losses.references import deregularised
from torch_mmd_losses.references.batches import Rows
from torch_mmd_losses.references.form import Form
from torch_mmd_losses.references.kernel_values import gram, weighted_by_rows, weighted_values
from torch_mmd_losses.references.self_terms import AT_ONCE, factored, sum_left_out, weighted_grams
from torch_mmd_losses.references.subsample import Chosen

SELF_ROWS = 20_000
"""Default number of rows that are kept to estimate the self term."""

MISSED = 0.25
"""Share of the squared norm of the mean embedding that shows, if landmarks leave out more, that there are too few."""


class Landmarks(Form):
    r"""Landmarks :math:`Z`, and the sums of `k(Z, r)` and `k(Z, r) r` over the rows.

    With :math:`K_\delta = k(Z, Z) + \delta I`, the mean of `k(p, r)` over the rows is approximated by
    :math:`k(p, Z) \alpha`, :math:`\alpha = K_\delta^{-1} \mu`, :math:`\mu = E\,k(Z, r)`.

    Args:
        kernel: the kernel.
        landmarks: the landmarks `(M, d)`.
        first: the first rows, whose dtype all rows have.
        self_rows: number of random rows that are kept to estimate the self term; None stands for :data:`SELF_ROWS`.
        seed: seed of their choice.
    """

    count: Tensor
    landmarks: Tensor
    mu: Tensor
    moments: Tensor
    chosen: Tensor
    chosen_weights: Tensor
    chosen_keys: Tensor
    alpha: Tensor
    beta: Tensor
    factor: Tensor

    def __init__(self, kernel: Kernel, landmarks: Tensor, first: Tensor, *, self_rows: int | None, seed: int) -> None:
        super().__init__(kernel, first)
        self.self_rows, self.seed = SELF_ROWS if self_rows is None else self_rows, seed
        wide = landmarks.to(total_dtype(landmarks.device))
        none = Chosen.none(Rows(first, None))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64, device=landmarks.device))
        self.register_buffer("landmarks", landmarks.clone())
        self.register_buffer("mu", torch.zeros_like(wide[:, 0]))
        self.register_buffer("moments", torch.zeros_like(wide))
        self.register_buffer("chosen", none.scores)
        self.register_buffer("chosen_weights", none.weights)
        self.register_buffer("chosen_keys", none.keys)
        self.register_buffer("alpha", torch.zeros_like(self.mu), persistent=False)
        self.register_buffer("beta", torch.zeros_like(self.moments), persistent=False)
        self.register_buffer("factor", factored(kernel, wide), persistent=False)  # fails before any row is read

    def _wide(self, rows: Tensor) -> Tensor:
        device = self.landmarks.device
        return rows.to(device, total_dtype(device))

    def add(self, rows: Rows) -> None:
        """Add the rows to the sums."""
        landmarks, mu, moments = self._wide(self.landmarks), self.mu.clone(), self.moments.clone()
        for part, values in weighted_grams(self.kernel, landmarks, rows.scores, rows.weights):
            mu += values.sum(1)
            moments += values @ part
        generator = torch.Generator().manual_seed(self.seed + int(self.count))
        kept = Chosen(self.chosen, self.chosen_weights, self.chosen_keys).extended(rows, self.self_rows, generator)
        self.chosen, self.chosen_weights, self.chosen_keys = kept
        self.mu, self.moments = mu, moments
        self.count += len(rows.scores)

    def examples(self) -> Tensor:
        """Return the landmarks."""
        return self.landmarks

    def prepare(self) -> None:
        """Solve for the weights of the landmarks."""
        if not len(self.factor):
            self.factor = factored(self.kernel, self._wide(self.landmarks))
        self.alpha = torch.cholesky_solve(self.mu.unsqueeze(1), self.factor).squeeze(1)
        self.beta = torch.cholesky_solve(self.moments, self.factor)

    def attraction(self, points: Tensor) -> Tensor:
        """Return the approximate mean kernel values."""
        alpha = self.alpha / self.weight
        return weighted_values(self.kernel, points, self.landmarks, alpha)

    def sums(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return the approximate means of `k(p, r)` and `k(p, r) r`."""
        both = torch.cat([self.alpha.unsqueeze(1), self.beta], 1) / self.weight
        found = weighted_by_rows(self.kernel, points, self.landmarks, both)
        return found[:, 0], found[:, 1:]

    def sum_within(self) -> Tensor:
        """Return the sum over all pairs, estimated without bias unless few rows were added."""
        chosen = Chosen(self.chosen, self.chosen_weights, self.chosen_keys)
        rest = sum_left_out(self.kernel, self._wide(self.landmarks), self.factor, chosen, int(self.count))
        return self._sum_of_projections() + self.diagonal + rest

    def _sum_of_projections(self) -> Tensor:
        return self.mu @ self.alpha

    def missed(self) -> Tensor:
        """Return the squared distance between the mean embedding of the rows and its approximation, from above.

        Rounding can make it negative by a few units in the last place of the self term, which are set to zero.
        """
        return (self.mean_within("biased") - self._sum_of_projections() / self.weight**2).clamp_min(0)

    def warn_if_few(self) -> None:
        """Issue a warning if the landmarks are clearly too few or too far away for the kernel."""
        norm, missed = float(self.mean_within("biased")), float(self.missed())
        if missed > MISSED * norm:
            usage_warnings.warn(
                "landmarks",
                f"MMDReference: expected landmarks that represent the reference, got {len(self.landmarks)} that leave "
                f"out {missed / norm:.0%} of the squared norm of its mean embedding. Pass more landmarks=, centres of "
                "clusters of the rows as a tensor, a wider kernel, or kind='exact'",
            )

    @torch.no_grad()
    def error_bound(self, fake: Tensor) -> Tensor:
        """Return the bound, see :meth:`MMDReference.error_bound`."""
        scores = self._wide(fake)
        landmarks = self._wide(self.landmarks)
        with full_precision(scores.device):
            parts = scores.split(max(1, AT_ONCE // len(landmarks)))
            mu = torch.stack([gram(self.kernel, landmarks, part).sum(1) for part in parts]).sum(0) / len(scores)
            solved = torch.linalg.solve_triangular(self.factor, mu.unsqueeze(1), upper=False)
            of_fake = self.repulsion(scores, "biased", LOCAL) - solved.square().sum()
        return (of_fake.clamp_min(0) * self.missed()).sqrt().to(fake)

    def regularised_on(self, device: torch.device, lambda_: float) -> deregularised.Factor:
        """Return the factor of the covariance of the chosen rows, projected onto the span of the landmarks."""
        landmarks = self.landmarks.to(device, total_dtype(device))
        within = self.mean_within("biased").to(landmarks)
        means = (self.mu / self.weight).to(landmarks)
        # Weights of one sign may all be negative.
        rows = Rows(self.chosen, self.chosen_weights.abs())
        return deregularised.of_landmarks(
            landmarks, self.factor.to(landmarks), means, within, rows, self.kernel, lambda_
        )

    def share(self, rank: int, world: int) -> Landmarks:
        """Return a copy: each process keeps all landmarks."""
        return copy.deepcopy(self, self._left_out())

    def _load_from_state_dict(self, *arguments: Any) -> None:  # noqa: ANN401
        super()._load_from_state_dict(*arguments)
        self.factor = self.factor.new_empty(0, 0)  # that of other landmarks
