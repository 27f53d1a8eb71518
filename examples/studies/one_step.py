"""The study of trainings without a discriminator as plain data: every run of it, chosen before the first one.

An arm says what differs from `COMMON`, or for the GANs from `GAN`; it is run with all seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

Value = bool | int | float | str | list[str] | tuple[float, ...]
Options = Mapping[str, Value]

NAME = "one-step"
PRESET = "fashion-mnist"
SECONDS = 90.0
"""CPU seconds of the iterations of each run, at which all are compared."""
LONGER = 180.0
"""Those of the exact reference, which is compared at equal iterations too and takes longest for one."""
SEEDS = (0, 1, 2)
MEASURED = (150, 300, 600, 1200)
"""Iterations after which a run is measured besides its end."""
IMAGES = 10_000
"""Generated images that are measured, and real ones that they are compared with."""
ENCODER = "random:0"
"""What all arms learn from, unless they say otherwise."""
LEARNT = 20_000
"""Images that are learnt from, of 59,000 that are not held out: an exact reference of all takes three times as long."""

WRITTEN: Options = {
    "iterations": 1_000_000,
    "log-every": 100,
    "checkpoint-every": 150,
    "keep-every": 150,
    "sample-every": 1_000_000,
    "device": "cpu",
}
"""Of all runs: as many iterations as there is time for, and checkpoints to be measured."""
COMMON: Options = {
    **WRITTEN,
    "conditional": False,
    "encoder": [ENCODER],
    "factor": 1.0,
    "learnt": LEARNT,
    "batch-size": 256,
    "micro-batch": 4096,
    "real-batch": 256,
}
"""Of the trainings without a discriminator, beside what the preset has: generator, rates of Adam, held-out images."""
GAN: Options = {**WRITTEN, "one-step-width": 16, "noise": 32, "width": 8, "channels-last": True}
"""Of the GANs, beside what the preset has. Width 8 is that of the study of losses, whose best rates they have."""


class Arm(NamedTuple):
    """One way to train."""

    options: Options
    seconds: tuple[float, ...] = (SECONDS,)
    """CPU seconds after which the run is measured; the last ends it."""
    script: str = "one_step"


EXACT: Options = {"reference": "exact"}
NYSTROEM: Options = {"reference": "nystrom", "landmarks": 1024}
RESAMPLED: Options = {"reference": "resampled"}
CONDITIONAL: Options = {**NYSTROEM, "centres": False, "conditional": True}
"""Centres of clusters would mix the classes, so landmarks are random images with their classes."""
QUARTER: Options = {"factor": 0.25}
WIDTHS = (0.25, 0.5, 1.0, 2.0)

ARMS: Mapping[str, Arm] = {
    # 1. What stands for the data, with the width of the kernel at the median distance and at a quarter of it.
    "exact": Arm(EXACT, (SECONDS, LONGER)),
    "nystroem-1024": Arm(NYSTROEM),
    "nystroem-256": Arm({**NYSTROEM, "landmarks": 256}),
    "fourier": Arm({"reference": "fourier"}),
    "resampled": Arm(RESAMPLED),
    "drift": Arm({**RESAMPLED, "loss": "drift"}),
    "exact-quarter": Arm({**EXACT, **QUARTER}, (SECONDS, LONGER)),
    "nystroem-1024-quarter": Arm({**NYSTROEM, **QUARTER}),
    "nystroem-256-quarter": Arm({**NYSTROEM, **QUARTER, "landmarks": 256}),
    "resampled-quarter": Arm({**RESAMPLED, **QUARTER}),
    # 4. GANs, with the best rates of the study of losses.
    "mmd-rep": Arm({**GAN, "loss": "mmd-rep", "lr-discriminator": 5e-4, "lr-generator": 2e-3}, script="wang2019"),
    "hinge": Arm({**GAN, "loss": "hinge", "lr-discriminator": 2e-3, "lr-generator": 2e-3}, script="wang2019"),
    # As the preset has it, but for the classes: encoders, widths, real images.
    "tuned": Arm(
        {**RESAMPLED, "encoder": [ENCODER, "pixels:16"], "factor": WIDTHS, "batch-size": 250, "real-batch": 500}
    ),
    # 2. The batch; nystroem-1024 is that of 256.
    "batch-64": Arm({**NYSTROEM, "batch-size": 64}),
    "batch-1024": Arm({**NYSTROEM, "batch-size": 1024}),
    "batch-4096": Arm({**NYSTROEM, "batch-size": 4096}),
    # 3. Encoders, the estimator and the kernel; each differs from `resampled` in one thing.
    "three-encoders": Arm({**RESAMPLED, "encoder": [ENCODER, "random:1", "pixels:16"]}),
    "unbiased": Arm({**RESAMPLED, "estimator": "unbiased"}),
    "laplace": Arm({**RESAMPLED, "kernel": "laplace"}),
    "matern": Arm({**RESAMPLED, "kernel": "matern"}),
    "energy": Arm({**RESAMPLED, "kernel": "energy"}),
    # 5. Classes, and guidance by signed weights.
    "classes": Arm(CONDITIONAL),
    "guidance-1.5": Arm({**CONDITIONAL, "guidance": 1.5}),
    "guidance-2": Arm({**CONDITIONAL, "guidance": 2.0}),
}
"""In the order in which they are run with each seed."""


class Trial(NamedTuple):
    """A run: an arm with a seed."""

    arm: str
    seed: int

    @property
    def name(self) -> str:
        """The name of its folder and of its raw log."""
        return f"{self.arm},seed={self.seed}"


def planned() -> list[Trial]:
    """Return all runs: all arms with a seed before the next one, so that what is done at any time is comparable."""
    return [Trial(arm, seed) for seed in SEEDS for arm in ARMS]


def options(trial: Trial) -> dict[str, Value]:
    """Return the options of the script of a run."""
    arm = ARMS[trial.arm]
    return {**(COMMON if arm.script == "one_step" else {}), **arm.options, "seed": trial.seed}


def words(trial: Trial, seconds: float, *, out: Path, data_root: Path) -> list[str]:
    """Return the command line of the script that trains a run for CPU seconds in all."""
    where = {"data-root": str(data_root), "out": str(out), "resume": "auto"}
    found = [PRESET, "--quiet"]
    for name, value in {**options(trial), "cpu-seconds": seconds, **where}.items():
        if isinstance(value, bool):
            found.append(f"--{name}" if value else f"--no-{name}")
        elif isinstance(value, tuple):
            found += [f"--{name}", *map(str, value)]
        else:
            found += [f"--{name}={each}" for each in (value if isinstance(value, list) else [value])]
    return found
