"""How long does `conv_spectral_norm` take, compared with PyTorch's own `spectral_norm`?

The layers are those of the discriminator of Wang et al., Table S1, at 32 x 32 pixels, but they are not applied to
images. The weights are computed as in a forward pass in training and differentiated along fixed directions, so the
batch has no effect. "One pass" is one forward and backward pass of this work, with weights that are unchanged or
changed in place as by an optimiser. "GAN step" is one change of the weights with three forward and backward passes. All
candidates are timed in turn, round after round, on one thread. The table has medians of the CPU time of the process,
and their ratios to PyTorch's norm, which normalises by the norm of the reshaped weight.

Everything is measured twice, in separate processes: once with the default allocator, which returns large blocks to the
system and takes page faults for the next blocks, and once with an allocator that keeps freed memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median
from typing import NamedTuple, cast

import torch
from common import Options, Record, Target, cpu_seconds, environment, main, markdown, progress
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from torch_mmd_losses import conv_spectral_norm
from torch_mmd_losses.types import Method

CONVOLUTIONS = (
    (3, 64, 3, 1, 32),
    (64, 128, 4, 2, 32),
    (128, 128, 3, 1, 16),
    (128, 256, 4, 2, 16),
    (256, 256, 3, 1, 8),
    (256, 512, 4, 2, 8),
    (512, 512, 3, 1, 4),
)
"""Input and output channels, kernel size, stride and input size."""
ALL_LAYERS = len(CONVOLUTIONS) + 1
QUICK_LAYERS = 1

METHODS: tuple[Method, ...] = ("conv", "pico", "matrix")
ROUNDS_A_SECOND = 12
WARM_UP = 2


class Work(NamedTuple):
    """The timed work: some passes, with or without a change of the weights before them."""

    passes: int
    change: bool


WORK = {
    "one pass, same weights": Work(1, change=False),
    "one pass, changed weights": Work(1, change=True),
    "GAN step": Work(3, change=True),
}
LIMITS = {"one pass, changed weights": 1.8, "GAN step": 1.0}
"""Limit of the time of `conv` compared with PyTorch's, with the default allocator."""


def layers(seed: int) -> list[nn.Module]:
    """Return the layers of Table S1, each with the same weights at every call."""
    torch.manual_seed(seed)
    convolutions = [nn.Conv2d(c, d, k, stride, padding=1) for c, d, k, stride, _ in CONVOLUTIONS]
    return [*convolutions, nn.Linear(512 * 4 * 4, 16)]


def inputs() -> list[Tensor]:
    """Return an input of each layer."""
    return [*(torch.zeros(1, c, size, size) for c, _, _, _, size in CONVOLUTIONS), torch.zeros(1, 512 * 4 * 4)]


def original(layer: nn.Module) -> Tensor:
    """Return the trained weight of a wrapped layer."""
    return layer.get_parameter("parametrizations.weight.original")


class Candidate:
    """The first layers, wrapped, and the directions to differentiate along."""

    def __init__(self, method: Method | None, count: int, seed: int) -> None:
        self.layers, self.inputs = layers(seed)[:count], inputs()[:count]
        self.directions = [torch.randn_like(layer.weight) for layer in self.layers]  # type: ignore[arg-type]
        for layer, x in zip(self.layers, self.inputs, strict=True):
            if method is None:
                parametrizations.spectral_norm(layer)
            else:
                conv_spectral_norm(layer, method=method)(x)

    def change(self) -> None:
        """Change the trained weights in place, but not their norms; this is not timed."""
        with torch.no_grad():
            for layer in self.layers:
                original(layer).neg_()

    def step(self, passes: int = 1) -> None:
        """Compute the weights as a forward in training does, and differentiate, some times."""
        for _ in range(passes):
            self._pass()

    def _pass(self) -> None:
        weights: list[Tensor] = []
        for layer, x in zip(self.layers, self.inputs, strict=True):
            for hook in layer._forward_pre_hooks.values():
                hook(layer, (x,), {})
            weights.append(cast("Tensor", layer.weight))
        torch.autograd.backward(weights, self.directions)
        for layer in self.layers:
            original(layer).grad = None

    def seconds(self, work: Work) -> float:
        """Return the CPU seconds of some passes."""
        if work.change:
            self.change()
        return cpu_seconds(lambda: self.step(work.passes))


def compare(count: int, rounds: int, seed: int) -> list[Record]:
    """Return the median CPU seconds of each candidate for each piece of work, measured in this process."""
    torch.set_num_threads(1)
    candidates = {"PyTorch": Candidate(None, count, seed)}
    candidates |= {method: Candidate(method, count, seed) for method in METHODS}
    records: list[Record] = []
    for name, work in WORK.items():
        times: dict[str, list[float]] = {key: [] for key in candidates}
        for _ in range(WARM_UP + rounds):
            for key, candidate in candidates.items():
                times[key].append(candidate.seconds(work))
        found = {key: median(values[WARM_UP:]) for key, values in times.items()}
        records.append({"layers": count, "rounds": rounds, "work": name, **found})
    return records


def in_new_process(count: int, rounds: int, seed: int, *, kept: bool) -> list[Record]:
    """Return the same, measured in a new process with an allocator that keeps freed memory or is as users have it."""
    command = [sys.executable, __file__, "--one", json.dumps([count, rounds, seed])]
    finished = subprocess.run(command, env=environment(kept=kept), stdout=subprocess.PIPE, check=True, text=True)
    return list(json.loads(finished.stdout))


def measure(options: Options) -> list[Record]:
    """Return a record for each allocator and piece of work, times in seconds."""
    rounds = max(3, round(ROUNDS_A_SECOND * options.seconds))
    records: list[Record] = []
    for kept in (False, True):
        progress("freed memory kept" if kept else "allocator as users have it")
        if options.quick:
            found = compare(QUICK_LAYERS, rounds, options.seed)
        else:
            found = in_new_process(ALL_LAYERS, rounds, options.seed, kept=kept)
        records += [{"kept": kept, **record} for record in found]
    return records


def beside(record: Record, method: Method) -> float:
    """Return the time of a method as a multiple of that of PyTorch's own normalisation."""
    return float(record[method] / record["PyTorch"])


def table(records: list[Record]) -> str:
    """Return a line for each allocator and piece of work."""
    rows = [
        [
            "kept" if r["kept"] else "as users have it",
            r["work"],
            f"{r['PyTorch'] * 1e3:.3g}",
            *(f"{beside(r, method):.2f}" for method in METHODS),
        ]
        for r in records
    ]
    return markdown(["freed memory", "work", "PyTorch [ms]", *(f"`{method}` / PyTorch" for method in METHODS)], rows)


def targets(records: list[Record]) -> list[Target]:
    """Return the promised times of `conv` with the default allocator."""
    found = {r["work"]: beside(r, "conv") for r in records if r["layers"] == ALL_LAYERS and not r["kept"]}
    return [
        Target(f"`conv_spectral_norm` / PyTorch's, {work}", limit, found.get(work)) for work, limit in LIMITS.items()
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(compare(*json.loads(sys.argv[2]))))
    else:
        main(sys.modules[__name__])
