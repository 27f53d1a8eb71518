"""Learning rates that fall when samples stop improving: the scheme of Binkowski et al. (2018) and Arbel et al. (2018).

Every 2,000 steps, generated samples are compared with those of 20,000 steps ago by the three-sample test with the
kernel of KID. If they are not significantly nearer to the data three times in a row, all learning rates fall:

    schedule = KIDSchedule([adam_d, adam_g], real_features)     # 2,048 real images through an Inception network
    for step in range(1, 150_001):
        ...
        if schedule.due(step):
            outcome = schedule.step(features(generator(noise)))  # as many generated ones

Any features will do, as long as they are always the same function of the images. `schedule.state_dict()` is part of a
checkpoint; the learning rates are in the states of the optimisers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses import PolynomialKernel
from torch_mmd_losses.two_sample.relative import Candidate, candidate, compare

Features = Callable[[Tensor], Tensor]
"""Maps images `(n, channels, size, size)` in [0, 1] to features `(n, d)`."""


class Outcome(NamedTuple):
    """The result of one evaluation."""

    p_value: float | None
    """Small if the samples are nearer to the data than the reference; None as long as there is no reference."""
    failures: int
    """Tests in a row, up to this one, that showed no improvement; 0 after a decay."""
    decayed: bool
    """Whether the learning rates fell."""


class KIDSchedule:
    """Lower learning rates by a factor when the relative KID test shows no improvement several times in a row.

    The rules are those of the authors' code:

    - The first `memory` evaluations are remembered and not tested. Each later one is tested against the oldest.
    - If the p-value is at most `level`, it is a success: the new evaluation is remembered and the oldest forgotten.
    - If not, it is a failure: the new evaluation is forgotten. The reference stays, and so grows older.
    - After `patience` failures in a row, learning rates are multiplied by `factor`, but not below `floor`. Of what is
      remembered and the new evaluation, the last `patience` are kept. Tests go on when there are `memory` again.

    One thing is the papers' and not the authors': their code raises the variance of the test to 1e-5 where it is less,
    so that no improvement of KID by less than 0.004 counts. `variance_floor=1e-5` does the same. Without it, a test
    whose variance is not positive is a failure.

    Args:
        optimisers: whose learning rates to lower, in all groups of parameters.
        real: features `(m, d)` of real images, the same after a resumption; the authors have 2,048.
        every: steps between evaluations.
        memory: evaluations between a sample and its reference, if no test fails.
        patience: failures in a row after which learning rates fall.
        factor: factor by which they fall, 0.8 in Arbel et al., 0.5 in Binkowski et al.
        floor: below which no learning rate falls.
        level: up to which p-value a test shows an improvement.
        variance_floor: to which smaller estimates of the variance are raised; None is as the papers have it.
    """

    def __init__(
        self,
        optimisers: Sequence[torch.optim.Optimizer],
        real: Tensor,
        *,
        every: int = 2000,
        memory: int = 10,
        patience: int = 3,
        factor: float = 0.8,
        floor: float = 1e-6,
        level: float = 0.1,
        variance_floor: float | None = None,
    ) -> None:
        if min(every, patience) < 1 or memory < patience:
            raise ValueError(
                "every, memory, patience: expected 1 <= every and 1 <= patience <= memory, "
                f"got {every}, {memory} and {patience}"
            )
        if not 0 < factor < 1:
            raise ValueError(f"factor: expected a number between 0 and 1, got {factor}")
        if variance_floor is not None and variance_floor <= 0:
            raise ValueError(f"variance_floor: expected a number > 0 or None, got {variance_floor}")
        self.optimisers, self.real, self.kernel = list(optimisers), real, PolynomialKernel()
        self.every, self.memory, self.patience = every, memory, patience
        self.factor, self.floor, self.level, self.variance_floor = factor, floor, level, variance_floor
        self._remembered: list[Candidate] = []
        self._failures = 0

    def due(self, step: int) -> bool:
        """Return whether to evaluate after so many steps."""
        return step > 0 and step % self.every == 0

    def step(self, fake: Tensor) -> Outcome:
        """Evaluate features of at least as many generated as real samples, the first of which are used.

        Lower the learning rates if it is time to.
        """
        if len(fake) < len(self.real):
            raise ValueError(f"fake: expected features of at least {len(self.real)} samples, got {len(fake)}")
        new = candidate(self.real, fake[: len(self.real)], self.kernel)
        if len(self._remembered) < self.memory:
            self._remembered.append(new)
            return Outcome(None, self._failures, decayed=False)
        test = compare(new, self._remembered[0])
        p_value = float(test.p_value)
        if self.variance_floor is not None and not test.variance >= self.variance_floor:
            p_value = float(torch.special.ndtr(test.difference / self.variance_floor**0.5))
        success = p_value <= self.level  # which NaN is not
        self._failures = 0 if success else self._failures + 1
        if success:
            self._remembered = [*self._remembered[1:], new]
        decayed = self._failures == self.patience
        if decayed:
            self._decay()
            self._remembered = [*self._remembered, new][-self.patience :]
            self._failures = 0
        return Outcome(p_value, self._failures, decayed)

    def _decay(self) -> None:
        for group in (group for optimiser in self.optimisers for group in optimiser.param_groups):
            rate = group["lr"]
            lowered = max(float(rate) * self.factor, min(float(rate), self.floor))
            group["lr"] = rate.fill_(lowered) if isinstance(rate, Tensor) else lowered

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, in numbers and tensors that `torch.load(..., weights_only=True)` reads."""
        return {"failures": self._failures, "remembered": [kept.tensors() for kept in self._remembered]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the schedule was that `state` is of, with as many real features."""
        device = self.real.device
        remembered = [
            Candidate.of([[number.to(device) for number in part] for part in kept]) for kept in state["remembered"]
        ]
        for found in (len(kept.within.rows) for kept in remembered):
            if found != len(self.real):
                raise ValueError(f"state: expected one of {len(self.real)} real features, got one of {found}")
        self._failures, self._remembered = int(state["failures"]), remembered


def feature_extractor(choice: str, shape: tuple[int, ...], device: torch.device) -> Features:
    """Return the features of images of a shape in a fixed network, which sees them as they would be saved, in bytes.

    The `choice` is that of `evaluate.py --features`. A `ValueError` says if there is no such network.
    """
    from evaluation import features

    network: Any = features.load(choice, shape=shape, inception_weights=None).network
    network.to(device)

    @torch.no_grad()
    def extract(images: Tensor) -> Tensor:
        pixels = images.mul(255).round().byte().to(device)
        return torch.cat([features.outputs(network, part)[0] for part in pixels.split(64)])

    return extract
