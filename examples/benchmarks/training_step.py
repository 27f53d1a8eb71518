"""Where does the time of a training step go, and is it slower than the same loop with a hinge loss?

The step is that of the paper's CIFAR-10 experiment on a CPU: the networks of Table S1 at 32 x 32 pixels, 64 real and 64
generated images, both networks updated from one forward pass, in float32 on one thread. Whole steps take turns with
each other and with their parts, each of which runs alone as in the step:

* "data": a batch of bytes from an array, in a random order, as numbers in [-1, 1];
* "generator": its forward pass, and the gradient of its weights;
* "discriminator": its forward pass without normalisation, and the gradients of its weights and of the generated images;
* "loss": both losses, and their gradients with respect to the scores;
* "normalisation": the weights of all layers from changed ones, and the gradient of the trained weights;
* "updates": two steps of Adam, and the moving average of the generator.

The table has medians of the CPU time of the process, with the default allocator.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import spectral_norm_time as norms
import torch
from common import Options, Record, Target, cpu_seconds, environment, main, markdown
from torch import Tensor
from wang_step import LEARNED_BY_PYTORCH, PRESETS, WangStep

WIDTH = 64
QUICK_WIDTH = 2
BATCH = 64
IMAGES = 50_000
QUICK_IMAGES = 128
WARM_UP = 1
SECONDS_A_ROUND = 1.0
"""One round is made for each second of the option, though it takes some ten."""

STEPS = {
    "`mmd-rep-b`, `conv`": ("mmd-rep-b", "conv"),
    "`mmd-rep-b`, `pico`": ("mmd-rep-b", "pico"),
    "`mmd-rep-b`, none": ("mmd-rep-b", "none"),
    "`hinge`, `conv`": ("hinge", "conv"),
    "`hinge`, PyTorch's": ("hinge", LEARNED_BY_PYTORCH),
}
"""Losses and spectral norms of whole steps, the first one that of the library."""
OURS, THEIRS = next(iter(STEPS)), "`hinge`, PyTorch's"
LIMITS = {"loss": 0.01, "normalisation": 0.05}
"""The largest share of a step that a part may take."""


def make_step(loss: str, norm: str, width: int, seed: int, **settings: Any) -> WangStep:  # noqa: ANN401
    """Return the step of the CIFAR-10 experiment with a loss and a spectral norm, on a CPU by default."""
    kinds = ("device", "dtype")
    options = {name: settings.pop(name) for name in kinds if name in settings}
    return WangStep(replace(PRESETS["cifar10"], loss=loss, width=width, seed=seed, **settings), norm, **options)


def parts(width: int, images: int, seed: int) -> dict[str, Callable[[], float]]:
    """Return functions that do a part of the step and return its CPU seconds."""
    work = make_step("mmd-rep-b", "none", width, seed).parts(images)
    layers = norms.ALL_LAYERS if width == WIDTH else norms.QUICK_LAYERS
    normalisation = norms.Candidate("conv", layers, seed)
    timed: dict[str, Callable[[], float]] = {name: lambda do=do: cpu_seconds(do) for name, do in work.items()}  # type: ignore[misc]
    timed["normalisation"] = lambda: normalisation.seconds(norms.Work(1, change=True))
    return timed


def step(loss: str, norm: str, width: int, seed: int, real: Tensor) -> Callable[[], float]:
    """Return a function that does a whole step, without the data, and returns its CPU seconds."""
    update = make_step(loss, norm, width, seed)
    return lambda: cpu_seconds(lambda: update(real))


def compare(width: int, images: int, rounds: int, seed: int) -> list[Record]:
    """Return the median CPU seconds of all parts and steps, measured in turns in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    real = torch.rand(BATCH, 3, 32, 32).mul(2).sub(1)
    candidates = {("part", name): do for name, do in parts(width, images, seed).items()}
    candidates |= {("step", name): step(loss, norm, width, seed, real) for name, (loss, norm) in STEPS.items()}
    times: dict[tuple[str, str], list[float]] = {key: [] for key in candidates}
    for _ in range(WARM_UP + rounds):
        for key, do in candidates.items():
            times[key].append(do())
    found = {key: median(values[WARM_UP:]) for key, values in times.items()}
    return [
        {"kind": kind, "name": name, "seconds": seconds, "width": width, "rounds": rounds}
        for (kind, name), seconds in found.items()
    ]


def measure(options: Options) -> list[Record]:
    """Return a record for each part and each step, times in seconds."""
    rounds = max(1 if options.quick else 3, round(options.seconds / SECONDS_A_ROUND))
    width, images = (QUICK_WIDTH, QUICK_IMAGES) if options.quick else (WIDTH, IMAGES)
    command = [sys.executable, __file__, "--one", json.dumps([width, images, rounds, options.seed])]
    finished = subprocess.run(command, env=environment(kept=False), stdout=subprocess.PIPE, check=True, text=True)
    return list(json.loads(finished.stdout))


def _times(records: list[Record]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the times of the parts, and of the steps."""
    kinds = ("part", "step")
    found = [{r["name"]: float(r["seconds"]) for r in records if r["kind"] == kind} for kind in kinds]
    return found[0], found[1]


def table(records: list[Record]) -> str:
    """Return the shares of the parts in a step of `mmd-rep-b` with `conv`, and steps compared with the hinge loss."""
    done, steps = _times(records)
    whole = steps[OURS] + done["data"]
    rows = [[name, f"{seconds * 1e3:.3g}", f"{seconds / whole:.1%}"] for name, seconds in done.items()]
    rows.append(["all parts, each done alone", f"{sum(done.values()) * 1e3:.4g}", f"{sum(done.values()) / whole:.1%}"])
    rows.append(["the step", f"{whole * 1e3:.4g}", "100.0%"])
    shares = markdown(["part", "[ms]", "share"], rows)
    rows = []
    for name, seconds in steps.items():
        rate = BATCH / (seconds + done["data"])
        rows.append([name, f"{seconds * 1e3:.4g}", f"{rate:.1f}", f"{seconds / steps[THEIRS]:.3f}"])
    beside = markdown(["loss, spectral norm", "step [ms]", "images / s", f"step / {THEIRS}"], rows)
    return f"{shares}\n\n{beside}"


def targets(records: list[Record]) -> list[Target]:
    """Return the promised shares."""
    done, steps = _times([r for r in records if r["width"] == WIDTH])
    return [
        Target(
            f"share of a CIFAR-10 step on CPU, {name}",
            limit,
            done[name] / (steps[OURS] + done["data"]) if done else None,
        )
        for name, limit in LIMITS.items()
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(compare(*json.loads(sys.argv[2]))))
    else:
        main(sys.modules[__name__])
