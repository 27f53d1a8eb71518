"""How long does the first `torch.compile` with `conv_spectral_norm` take, compared with PyTorch's `spectral_norm`?

The network has two convolutions and a linear layer, and has run before. Its first compiled forward and backward pass in
training mode is timed, and then its first forward pass without gradients, which compiles again. Each measurement has a
new process, in which something small was compiled before, and an empty cache. The table has medians of the CPU time of
the process and of the C++ compilers that it starts, on one thread.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from statistics import median

import torch
from common import Options, Record, Target, environment, main, markdown, progress
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from torch_mmd_losses import conv_spectral_norm

CANDIDATES = ("plain", "PyTorch", "conv", "pico", "matrix")
"""The network as it is, with PyTorch's normalisation, or with a method of `conv_spectral_norm`."""

WORK = ("training, the first pass", "then without gradients")
LIMIT = 1.3
"""The most that `conv` may take as a multiple of PyTorch's."""

ROUNDS = 3
SIZE = 16


def network(candidate: str, seed: int) -> nn.Module:
    """Return the network, after a forward pass."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.Linear(32 * 64, 16)]
    if candidate == "PyTorch":
        layers = [parametrizations.spectral_norm(layer) for layer in layers]
    model = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), nn.Flatten(), layers[2])
    if candidate in ("conv", "pico", "matrix"):
        conv_spectral_norm(model, method=candidate)  # type: ignore[arg-type]
    model(torch.zeros(1, 3, SIZE, SIZE))
    return model


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU time of a call, with that of the processes that it starts and waits for."""
    own, others = time.process_time(), os.times()
    work()
    end = os.times()
    of_others = end.children_user + end.children_system - others.children_user - others.children_system
    return time.process_time() - own + of_others


def seconds(candidate: str, seed: int, backend: str = "inductor") -> list[float]:
    """Return the CPU seconds of each piece of work in this process."""
    torch.set_num_threads(1)
    torch.compiler.reset()
    model = network(candidate, seed)
    images = torch.randn(8, 3, SIZE, SIZE)

    def small(x: Tensor) -> Tensor:
        return (x.sin() @ x).sum()

    torch.compile(small, backend=backend)(torch.ones(2, 2, requires_grad=True)).backward()
    compiled = torch.compile(model, fullgraph=True, backend=backend)

    def train() -> None:
        compiled(images).square().sum().backward()

    def without_gradients() -> None:
        with torch.no_grad():
            compiled(images)

    return [cpu_seconds(train), cpu_seconds(without_gradients)]


def in_new_process(candidate: str, seed: int) -> list[float]:
    """Return the same, measured in a new process with an empty cache that starts its compilers one by one."""
    with tempfile.TemporaryDirectory() as cache:
        settings = {"TORCHINDUCTOR_CACHE_DIR": cache, "TORCHINDUCTOR_COMPILE_THREADS": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "--one", json.dumps([candidate, seed])]
        variables = {**environment(kept=False), **settings}
        finished = subprocess.run(command, env=variables, stdout=subprocess.PIPE, check=True, text=True)
    return list(json.loads(finished.stdout))


def measure(options: Options) -> list[Record]:
    """Return a record for each piece of work, with the seconds of each candidate."""
    times: dict[str, list[list[float]]] = {candidate: [] for candidate in CANDIDATES}
    for turn in range(1 if options.quick else ROUNDS):
        for candidate in CANDIDATES:
            begin = time.monotonic()
            found = seconds(candidate, options.seed, "eager") if options.quick else in_new_process(candidate, turn)
            times[candidate].append(found)
            progress(f"{candidate}, round {turn + 1}, {time.monotonic() - begin:.0f} s")
    return [
        {"work": work, "quick": options.quick, **{key: median(t[i] for t in found) for key, found in times.items()}}
        for i, work in enumerate(WORK)
    ]


def table(records: list[Record]) -> str:
    """Return a line for each piece of work."""
    others = [candidate for candidate in CANDIDATES if candidate != "PyTorch"]
    rows = [[r["work"], f"{r['PyTorch']:.3g}", *(f"{r[key] / r['PyTorch']:.2f}" for key in others)] for r in records]
    return markdown(["work", "PyTorch [s]", *(f"{key} / PyTorch" for key in others)], rows)


def targets(records: list[Record]) -> list[Target]:
    """Return the promised times of `conv`."""
    found = {r["work"]: r["conv"] / r["PyTorch"] for r in records if not r["quick"]}
    return [Target(f"first `torch.compile` / PyTorch's, {work}", LIMIT, found.get(work)) for work in WORK]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(seconds(*json.loads(sys.argv[2]))))
    else:
        main(sys.modules[__name__])
