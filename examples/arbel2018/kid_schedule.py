"""Learning rates that fall when samples stop improving, as in Binkowski et al. (2018) and Arbel et al. (2018)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses import PolynomialKernel
from torch_mmd_losses.two_sample.relative import Candidate, candidate, compare

Features = Callable[[Tensor], Tensor]  # maps images `(n, channels, size, size)` in [0, 1] to features `(n, d)`


class Outcome(NamedTuple):
    """The p-value of a test, or None if there is no reference yet, and the failures in a row; 0 after a decay."""

    p_value: float | None
    failures: int


class KIDSchedule:
    """Lower learning rates by a factor when the relative KID test shows no improvement several times in a row.

    The rules are those of the authors' code:

    - The first `memory` evaluations are stored without a test. Each later one is tested against the oldest stored one.
    - A p-value of at most `level` is a success: the new evaluation is stored and the oldest one dropped.
    - Otherwise the test is a failure: the new evaluation is dropped, and the reference stays the same.
    - After `patience` failures in a row, the learning rates are multiplied by `factor`, but not lowered below `floor`.
      The last `patience` of the stored evaluations and the new one are kept. Tests restart when `memory` are stored.

    As in the papers, the variance of the test has no lower bound, and a test whose variance is not positive is a
    failure. The authors' code raises the variance to 1e-5, so that improvements of KID by less than 0.004 do not count.

    `real` has the features `(m, d)` of real images; a resumed schedule needs the same ones. The features of the samples
    have to come from the same network.
    """

    def __init__(
        self,
        optimisers: Sequence[torch.optim.Optimizer],
        real: Tensor,
        *,
        every: int = 2000,
        memory: int = 10,
        patience: int = 3,
        factor: float = 0.8,  # 0.5 in Binkowski et al.
        floor: float = 1e-6,
        level: float = 0.1,
    ) -> None:
        self.optimisers, self.real, self.kernel = list(optimisers), real, PolynomialKernel()
        self.every, self.memory, self.patience = every, memory, patience
        self.factor, self.floor, self.level = factor, floor, level
        self._remembered: list[Candidate] = []
        self._failures = 0

    def due(self, step: int) -> bool:
        return step > 0 and step % self.every == 0

    def step(self, fake: Tensor) -> Outcome:
        """Evaluate features `(m, d)` of generated samples, and lower the learning rates if the rules say so."""
        new = candidate(self.real, fake, self.kernel)
        if len(self._remembered) < self.memory:
            self._remembered.append(new)
            return Outcome(None, self._failures)
        p_value = float(compare(new, self._remembered[0]).p_value)
        success = p_value <= self.level  # false for NaN
        self._failures = 0 if success else self._failures + 1
        if success:
            self._remembered = [*self._remembered[1:], new]
        if self._failures == self.patience:
            self._decay()
            self._remembered = [*self._remembered, new][-self.patience :]
            self._failures = 0
        return Outcome(p_value, self._failures)

    def _decay(self) -> None:
        for group in (group for optimiser in self.optimisers for group in optimiser.param_groups):
            group["lr"] = max(group["lr"] * self.factor, min(group["lr"], self.floor))

    def state_dict(self) -> dict[str, Any]:
        """Return the state as numbers and tensors, which `torch.load(..., weights_only=True)` reads."""
        return {"failures": self._failures, "remembered": [kept.tensors() for kept in self._remembered]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state, of a schedule with the same number of real features."""
        device = self.real.device
        remembered = [
            Candidate.of([[number.to(device) for number in part] for part in kept]) for kept in state["remembered"]
        ]
        for found in (len(kept.within.rows) for kept in remembered):
            if found != len(self.real):
                raise ValueError(f"state: expected one of {len(self.real)} real features, got one of {found}")
        self._failures, self._remembered = int(state["failures"]), remembered


def feature_extractor(choice: str, shape: tuple[int, ...], device: torch.device) -> Features:
    """Return a function from images of a shape to their features in a fixed network, after rounding to bytes.

    The `choice` is that of `evaluate.py --features`. Raises `ValueError` if there is no such network.
    """
    from evaluation import features

    network, _ = features.load(choice, shape=shape)

    def extract(images: Tensor) -> Tensor:
        return features.extract(network, images.mul(255).round().byte(), 64, device)[0].to(device)

    return extract
