"""Times, memory, launches and waits of work on a GPU; on a CPU, in rehearsals, only those that exist there."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from statistics import median
from typing import Any, NamedTuple

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

Record = dict[str, Any]

TURN = 0.005
"""Seconds of one turn of a candidate, if one call takes less."""

WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaMemcpy")
READ = "aten::_local_scalar_dense"


class Candidate(NamedTuple):
    """Work to be timed, untimed work before each turn, and a context for both."""

    work: Callable[[], object]
    before: Callable[[], object] | None = None
    context: Callable[[], AbstractContextManager[object]] = nullcontext


def wait(device: torch.device) -> None:
    """Wait until the device has done everything."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Rounds(NamedTuple):
    """How often candidates take turns before they are timed, and then at least and at most."""

    warm_up: int = 3
    least: int = 3
    most: int = 200


ONCE = Rounds(1, 1, 1)
"""For rehearsals."""


def timed(
    candidates: Mapping[str, Candidate],
    device: torch.device,
    deadline: float,
    rounds: Rounds = Rounds(),  # noqa: B008
) -> tuple[dict[str, Record], dict[str, str]]:
    """Return for each candidate the median seconds on the device and on the host, and the errors of those that failed.

    Candidates take turns, round after round, until the deadline (:func:`time.monotonic`) and at least a given number of
    times, so a temporary slowdown of the machine affects all of them. The seconds of the host end when it has launched
    everything; a GPU is timed by events. A candidate that fails in any call is left out of later rounds.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    calls: dict[str, int] = {}
    errors: dict[str, str] = {}

    def turn(name: str, count: int) -> tuple[float, float] | None:
        try:
            return _turn(candidates[name], device, count)
        except Exception as error:
            errors[name] = described(error)
            free(device)
            return None

    for name, candidate in candidates.items():
        first = [turn(name, 1) for _ in range(rounds.warm_up)]
        if first[-1] is not None:
            once = max(sum(first[-1]), 1e-7)
            calls[name] = 1 if candidate.before else max(1, int(TURN / once))
    for done in range(rounds.most):
        if done >= rounds.least and time.monotonic() > deadline:
            break
        for name in [name for name in calls if name not in errors]:
            found = turn(name, calls[name])
            if found is not None:
                times[name].append(found)
    medians = {
        name: {
            "seconds": median(on_device for on_device, _ in found),
            "host_seconds": median(on_host for _, on_host in found),
            "rounds": len(found),
        }
        for name, found in times.items()
        if found and name not in errors
    }
    return medians, errors


def _turn(candidate: Candidate, device: torch.device, calls: int) -> tuple[float, float]:
    """Return the seconds of a call on the device and on the host, as a mean over some calls."""
    with candidate.context():
        if candidate.before is not None:
            candidate.before()
        wait(device)
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if device.type == "cuda" else []
        start = time.perf_counter()
        for event in events[:1]:
            event.record()
        for _ in range(calls):
            candidate.work()
        for event in events[1:]:
            event.record()
        on_host = time.perf_counter() - start
        wait(device)
    on_device = events[0].elapsed_time(events[1]) / 1e3 if events else on_host
    return on_device / calls, on_host / calls


def memory(candidate: Candidate, device: torch.device) -> int | None:
    """Return the peak memory of a call in bytes, beyond the memory in use before it; None on a CPU."""
    if device.type != "cuda":
        candidate.work()
        return None
    with candidate.context():
        candidate.work()
        wait(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        candidate.work()
        wait(device)
        return torch.cuda.max_memory_allocated(device) - before


def counts(candidate: Candidate, device: torch.device) -> Record:
    """Return the number of launches of a call after warm-up, and how often the host waits for the device.

    `kernels` and `copies` are counted by the profiler, and are None if it sees none, as without access to the counters
    of the driver. `waits` are calls of the driver that wait, in an ordinary call; `reads` are numbers that the host
    reads, from any device. `reported` is the number of reports of `torch.cuda.set_sync_debug_mode`.
    """
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with candidate.context():
        candidate.work()
        wait(device)
        with profile(activities=activities, acc_events=True) as profiled:
            candidate.work()
        reported = _reported(candidate.work, device)
    events = list(profiled.events() or ())
    launched = [e.name for e in events if _is_on_gpu(e) and not getattr(e, "is_user_annotation", False)]
    copies = [name for name in launched if name.startswith(("Memcpy", "Memset"))]
    names = [event.name for event in events if not _is_on_gpu(event)]
    return {
        "kernels": len(launched) - len(copies) if launched else None,
        "copies": len(copies) if launched else None,
        "waits": sum(name in WAITS for name in names) if launched else None,
        "reads": names.count(READ),
        "reported": reported,
    }


def _is_on_gpu(event: FunctionEvent) -> bool:
    return bool(event.device_type.name == "CUDA")


def _reported(work: Callable[[], object], device: torch.device) -> int | None:
    """Return how many synchronisations PyTorch reports in a call; None on a CPU."""
    if device.type != "cuda":
        return None
    wait(device)
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return sum("synchroniz" in str(warning.message) for warning in caught)


@contextmanager
def tensor_float(allowed: bool) -> Iterator[None]:
    """Let convolutions and matrix products of float32 use TF32 or not, in the block only."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = allowed
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


def free(device: torch.device) -> None:
    """Return unused memory to the device, for example after it has run out of memory."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def described(error: BaseException) -> str:
    """Return the kind and the first lines of an error."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
