"""The parts of the benchmark without a training: functions of their time, which send each record immediately."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import torch
from by_hand import Loss, Pair, bandwidths, kernels, plain, samples, step
from common import machine
from torch import Tensor

from on_gpu.journal import emit
from on_gpu.timing import ONCE, Candidate, Rounds, counts, described, free, memory, timed, wait
from torch_mmd_losses import MMDLoss, mmd2
from torch_mmd_losses.precision import has_fast_float64

SIZES = ((64, 16), (256, 16), (1024, 128), (4096, 128))
SMALL_SIZES = ((8, 2), (300, 2))
COMPILED = ((64, 16), (1024, 128))
LARGE = ((8192, 1024), (65536, 256))
SMALL_LARGE = ((300, 4), (600, 2))
MOST = 0.8
"""The share of the device's memory that plain Gram matrices may take before they are not tried."""


class Task(NamedTuple):
    """Where, how large and how long."""

    device: torch.device
    small: bool
    seconds: float
    start: float

    def deadline(self, done: int, of: int) -> float:
        """Return when the line after `done` of `of` lines should be finished, so that all of them have their time."""
        return self.start + self.seconds * 0.9 * (done + 1) / of

    @property
    def rounds(self) -> Rounds:
        """How often to repeat."""
        return ONCE if self.small else Rounds()

    @property
    def is_over(self) -> bool:
        """Whether there is no time for another line."""
        return time.monotonic() > self.start + self.seconds * 0.9


def device(task: Task) -> None:
    """Send the conditions of the measurements, and whether the device works at all."""
    found: dict[str, Any] = {**machine(), "device": "CPU"}
    if task.device.type == "cuda":
        properties = torch.cuda.get_device_properties(task.device)
        found |= {
            "device": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory": properties.total_memory,
            "devices": torch.cuda.device_count(),
            "CUDA": torch.version.cuda,
            "HIP": torch.version.hip,
            "cuDNN": torch.backends.cudnn.version(),
        }
    found["TF32 by default"] = {
        "products": torch.backends.cuda.matmul.allow_tf32,
        "convolutions": torch.backends.cudnn.allow_tf32,
    }
    found["cuDNN benchmark"] = torch.backends.cudnn.benchmark
    found["triton"] = _version("triton")
    emit(found)
    x = torch.ones(64, 64, device=task.device, requires_grad=True)
    (x @ x).sum().backward()
    assert x.grad is not None
    emit({"works": bool((x.grad == 128).all())})


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def scores(n: int, d: int, where: torch.device) -> tuple[Tensor, Tensor]:
    """Return real and fake scores on the device, as leaves."""
    real, fake = (x.detach().to(where).requires_grad_() for x in samples(n, d, 0))
    return real, fake


def losses(task: Task) -> None:
    """Time the losses with their gradients, compared with plain autograd and geomloss; memory, launches and waits."""
    samples_loss = _geomloss()
    lines = [(n, d, name) for n, d in (SMALL_SIZES if task.small else SIZES) for name in kernels(d)]
    for done, (n, d, name) in enumerate(lines):
        pair = kernels(d)[name]
        real, fake = scores(n, d, task.device)
        found: dict[str, Loss] = {
            "plain": plain(pair.by_hand),
            "mmd2": partial(mmd2, kernel=pair.ours, estimator="biased"),
            "both": _both(pair),
        }
        if samples_loss is not None and name in bandwidths(d):
            found["geomloss"] = _of_geomloss(samples_loss, bandwidths(d)[name])
        _compare({"n": n, "d": d, "kernel": name}, found, real, fake, task, task.deadline(done, len(lines)))


def _both(pair: Pair) -> Loss:
    loss = MMDLoss(pair.ours, estimator="biased")
    return lambda real, fake: torch.stack(loss.both(real, fake)).sum()


def _geomloss() -> Callable[..., Any] | None:
    try:
        return importlib.import_module("geomloss").SamplesLoss
    except Exception as error:
        emit({"candidate": "geomloss", "error": described(error)})
        return None


def _of_geomloss(samples_loss: Callable[..., Any], sigmas: tuple[float, ...]) -> Loss:
    parts = [samples_loss("gaussian", blur=sigma, backend="tensorized") for sigma in sigmas]
    return lambda real, fake: 2 * torch.stack([part(real, fake) for part in parts]).sum()


def _compare(
    line: dict[str, Any],
    found: dict[str, Loss],
    real: Tensor,
    fake: Tensor,
    task: Task,
    deadline: float,
) -> None:
    """Send the times of some losses that take turns, then the memory, the launches and the waits of each."""
    if task.is_over:
        emit({**line, "candidate": ", ".join(found), "error": "not tried: no time was left"})
        return
    where = task.device
    candidates = {name: Candidate(step(loss, real, fake)) for name, loss in found.items()}
    reserved = 0.3 * max(0.0, deadline - time.monotonic())
    times, errors = timed(candidates, where, deadline - reserved, task.rounds)
    for name, error in errors.items():
        emit({**line, "candidate": name, "error": error})
    for name, taken in times.items():
        record = {**line, "candidate": name, **taken}
        try:
            record["bytes"] = memory(candidates[name], where)
            record |= counts(candidates[name], where)
        except Exception as error:
            record["error"] = described(error)
            free(where)
        emit(record)


def large(task: Task) -> None:
    """Time `mmd2` with its gradient for very large samples, compared with plain autograd where that fits."""
    sizes = SMALL_LARGE if task.small else LARGE
    for done, (n, d) in enumerate(sizes):
        try:
            _large(n, d, task, task.deadline(done, len(sizes)))
        except Exception as error:
            emit({"n": n, "d": d, "kernel": "RBF", "candidate": "mmd2", "error": described(error)})
            free(task.device)


def _large(n: int, d: int, task: Task, deadline: float) -> None:
    line: dict[str, Any] = {"n": n, "d": d, "kernel": "RBF"}
    pair = kernels(d)["RBF"]
    real, fake = scores(n, d, task.device)
    wait(task.device)
    start = time.perf_counter()
    mmd2(real, fake, pair.ours).backward()
    wait(task.device)
    emit({**line, "candidate": "mmd2", "first_call": time.perf_counter() - start})
    found: dict[str, Loss] = {"mmd2": partial(mmd2, kernel=pair.ours, estimator="biased")}
    needed = 4 * 10 * n**2
    if task.small or needed < MOST * torch.cuda.get_device_properties(task.device).total_memory:
        found["plain"] = plain(pair.by_hand)
    else:
        emit({**line, "candidate": "plain", "error": f"not tried: it needs about {needed / 1e9:.0f} GB"})
    _compare(line, found, real, fake, task, deadline)
    if has_fast_float64(task.device) or n <= LARGE[0][0]:
        values = [float(mmd2(real.detach().to(t), fake.detach().to(t), pair.ours)) for t in (real.dtype, torch.float64)]
        emit({**line, "value": values[0], "in_float64": values[1]})


def compiled_losses(task: Task) -> None:
    """Time compiled plain autograd and the compiled loss, compared with both without compilation."""
    lines = [(n, d, name) for n, d in COMPILED for name in ("RBF", "5 RBF")]
    if task.small:
        lines = [(*SMALL_SIZES[0], "RBF")]
    backend = "eager" if task.small else "inductor"
    for done, (n, d, name) in enumerate(lines):
        if task.is_over:
            emit({"n": n, "d": d, "kernel": name, "candidate": "compiled", "error": "not tried: no time was left"})
            continue
        pair = kernels(d)[name]
        real, fake = scores(n, d, task.device)
        eager: dict[str, Loss] = {
            "plain": plain(pair.by_hand),
            "mmd2": partial(mmd2, kernel=pair.ours, estimator="biased"),
        }
        line = {"n": n, "d": d, "kernel": name, "backend": backend}
        found = dict(eager)
        for key, loss in eager.items():
            torch.compiler.reset()
            start = time.monotonic()
            candidate = torch.compile(loss, dynamic=False, backend=backend)
            try:
                step(candidate, real, fake)()
            except Exception as error:
                emit({**line, "candidate": f"compiled {key}", "error": described(error)})
                continue
            emit({**line, "candidate": f"compiled {key}", "first_call": time.monotonic() - start})
            found[f"compiled {key}"] = candidate
        _compare(line, found, real, fake, task, task.deadline(done, len(lines)))


WORK: dict[str, Callable[[Task], None]] = {
    "device": device,
    "losses": losses,
    "large": large,
    "compiled losses": compiled_losses,
}
"""The parts of this module, by name."""
