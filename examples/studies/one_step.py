"""All runs of the study of trainings without a discriminator, as plain data that was chosen before the first run.

An arm is a setting that is run with all seeds. It lists its differences from `COMMON`, or those of a GAN from `GAN`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

Value = bool | int | float | str | list[str] | tuple[float, ...]
Options = Mapping[str, Value]

PRESET = "fashion-mnist"
SECONDS = 90.0
"""CPU seconds of iterations after which all runs are compared."""
LONGER = 180.0
"""CPU seconds of the exact reference, so that it reaches the iterations at which all are compared too."""
SEEDS = (0, 1, 2)
MEASURED = (150, 300, 600, 1200)
"""Iterations after which a run is measured, in addition to its end."""
IMAGES = 10_000
"""Number of generated images that are measured, and of real images that they are compared with."""
ENCODER = "random:0"
"""The encoder of all arms without an encoder of their own."""
LEARNT = 20_000
"""Number of training images. With all 59,000 that are not held out, the exact reference takes three times as long."""

WRITTEN: Options = {
    "iterations": 1_000_000,
    "log-every": 100,
    "checkpoint-every": 150,
    "keep-every": 150,
    "sample-every": 1_000_000,
    "device": "cpu",
}
"""Options of all runs. CPU seconds end a run long before its iterations, and checkpoints are kept for the measures."""
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
"""Options of the trainings without a discriminator. Generator, rates and held-out images are those of the preset."""
GAN: Options = {**WRITTEN, "one-step-width": 16, "noise": 32, "width": 8, "channels-last": True}
"""Options of the GANs. Width 8 and the learning rates are those of the study of losses."""


class Arm(NamedTuple):
    """A setting of the study."""

    options: Options
    seconds: tuple[float, ...] = (SECONDS,)
    """CPU seconds after which the run is measured; the last number ends it."""
    script: str = "one_step"


EXACT: Options = {"reference": "exact"}
NYSTROEM: Options = {"reference": "nystrom", "landmarks": 1024}
RESAMPLED: Options = {"reference": "resampled"}
CONDITIONAL: Options = {**NYSTROEM, "centres": False, "conditional": True}
"""Centres of clusters would mix the classes, so landmarks are random images with their classes."""
QUARTER: Options = {"factor": 0.25}
WIDTHS = (0.25, 0.5, 1.0, 2.0)

ARMS: Mapping[str, Arm] = {
    # 1. References for the data, with sigma at the median distance and at a quarter of it.
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
    # 4. GANs, with the best learning rates of the study of losses.
    "mmd-rep": Arm({**GAN, "loss": "mmd-rep", "lr-discriminator": 5e-4, "lr-generator": 2e-3}, script="wang2019"),
    "hinge": Arm({**GAN, "loss": "hinge", "lr-discriminator": 2e-3, "lr-generator": 2e-3}, script="wang2019"),
    # Encoders, widths and batches of the preset, without classes.
    "tuned": Arm(
        {**RESAMPLED, "encoder": [ENCODER, "pixels:16"], "factor": WIDTHS, "batch-size": 250, "real-batch": 500}
    ),
    # 2. The batch size, which is 256 in nystroem-1024.
    "batch-64": Arm({**NYSTROEM, "batch-size": 64}),
    "batch-1024": Arm({**NYSTROEM, "batch-size": 1024}),
    "batch-4096": Arm({**NYSTROEM, "batch-size": 4096}),
    # 3. Encoders, the estimator and the kernel; each arm differs from `resampled` in one option.
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
"""In the order of the runs with each seed."""


class Trial(NamedTuple):
    """A run, which is an arm with a seed."""

    arm: str
    seed: int

    @property
    def name(self) -> str:
        """The name of its folder and of its raw log."""
        return f"{self.arm},seed={self.seed}"


def planned() -> list[Trial]:
    """Return all runs. All arms with a seed come before the next seed, so that finished runs can always be compared."""
    return [Trial(arm, seed) for seed in SEEDS for arm in ARMS]


def options(trial: Trial) -> dict[str, Value]:
    """Return the options of a run."""
    arm = ARMS[trial.arm]
    return {**(COMMON if arm.script == "one_step" else {}), **arm.options, "seed": trial.seed}


def words(trial: Trial, seconds: float, *, out: Path, data_root: Path) -> list[str]:
    """Return the arguments of the script that trains a run up to a total of CPU seconds."""
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
