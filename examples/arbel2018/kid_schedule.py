"""Learning rates that fall when samples stop improving, as in Binkowski et al. (2018) and Arbel et al. (2018)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from training.errors import RefusedError
from training.processes import averaged

from arbel2018.data import load
from arbel2018.presets import Arbel2018
from torch_mmd_losses import PolynomialKernel
from torch_mmd_losses.two_sample.relative import Candidate, candidate, compare


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

    `features` maps images to features `(m, d)`, and `real` has those of real images; a resumed schedule needs the same.
    `p_value` is that of the last test, or None without a reference or a variance, and `failures` those in a row.
    """

    def __init__(
        self,
        optimisers: Sequence[torch.optim.Optimizer],
        features: Callable[[Tensor], Tensor],
        real: Tensor,
        *,
        memory: int = 10,
        patience: int = 3,
        factor: float = 0.8,  # 0.5 in Binkowski et al.
        floor: float = 1e-6,
        level: float = 0.1,
    ) -> None:
        self.optimisers, self.features, self.real, self.kernel = optimisers, features, real, PolynomialKernel()
        self.memory, self.patience, self.factor, self.floor, self.level = memory, patience, factor, floor, level
        self._remembered: list[Candidate] = []
        self.p_value: float | None = None
        self.failures = 0

    def step(self, samples: Tensor) -> None:
        """Evaluate generated images, and lower the learning rates if the rules say so."""
        new = candidate(self.real, self.features(samples), self.kernel)
        if len(self._remembered) < self.memory:
            self._remembered.append(new)
            self.p_value = None
            return
        p_value = float(compare(new, self._remembered[0]).p_value)
        success = p_value <= self.level  # false for NaN
        self.failures = 0 if success else self.failures + 1
        if success:
            self._remembered = [*self._remembered[1:], new]
        if self.failures == self.patience:
            for group in (group for optimiser in self.optimisers for group in optimiser.param_groups):
                group["lr"] = max(group["lr"] * self.factor, min(group["lr"], self.floor))
            self._remembered = [*self._remembered, new][-self.patience :]
            self.failures = 0
        self.p_value = None if math.isnan(p_value) else p_value

    def state_dict(self) -> dict[str, Any]:
        """Return the state as numbers and tensors, which `torch.load(..., weights_only=True)` reads."""
        remembered = [kept.tensors() for kept in self._remembered]
        return {"p_value": self.p_value, "failures": self.failures, "remembered": remembered}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state, of a schedule with the same number of real features."""
        device = self.real.device
        remembered = [
            Candidate.of([[number.to(device) for number in part] for part in kept]) for kept in state["remembered"]
        ]
        for found in (len(kept.within.rows) for kept in remembered):
            if found != len(self.real):
                raise ValueError(f"state: expected one of {len(self.real)} real features, got one of {found}")
        self.p_value, self.failures, self._remembered = state["p_value"], int(state["failures"]), remembered


def kid_schedule(fabric: Fabric, settings: Arbel2018, optimisers: Sequence[torch.optim.Optimizer]) -> KIDSchedule:
    """Return the schedule of a training; its features are the same in all processes bit for bit."""
    from evaluate import picked
    from evaluation import features

    count, shape = settings.kid_images, (settings.channels, settings.size, settings.size)
    images = load(settings.dataset, settings.data_root, size=settings.size, channels=settings.channels, margin=0)
    if len(images) < count:
        raise RefusedError(f"kid_images: expected at most the number of images, {len(images)}; got {count}")
    try:
        network, _ = features.load(str(settings.kid_features), shape)
    except ValueError as error:
        raise RefusedError(str(error)) from error

    def extract(pixels: Tensor) -> Tensor:
        found = features.extract(network, pixels, 64, fabric.device)[0].to(fabric.device)
        averaged(fabric, [found])
        return found

    return KIDSchedule(
        optimisers,
        extract,
        extract(picked(images, count, settings.seed)),
        memory=settings.kid_memory,
        patience=settings.kid_failures,
        factor=settings.lr_factor,
        floor=settings.lr_least,
    )
