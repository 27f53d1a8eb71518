"""How much faster do more threads make a loss with its gradient, alone and with other busy processes?

Times here are wall-clock times, not CPU times, because the processor does the same work with any number of threads.
"Bare" is only the sequence of matrix products, exponentials and passes over matrices of a loss of this library, in the
same tiles. The half of the turns in which other processes ran least counts. Before a turn, the threads work for 0.3 s,
because the second core of a virtual machine is slow at first after a rest. Memory is measured in a new process for each
number, with the default allocator.

More cores than this machine has are a model. It counts the operators and the work of each. At most `e / 32768` threads
share an operator on matrices with `e` elements, because PyTorch does not give a thread less work. The work of the
operator is divided by their number, and its start and end take `log2(threads)` times as long as was measured with two
threads. Memory is as fast as needed in the model, which favours plain autograd: its matrices do not fit into any cache.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest import mock

import torch
from by_hand import Pair, kernels, plain, samples, step
from common import Options, Record, Size, Target, main, markdown, printed_by, progress
from counts import FREE
from memory import WARM_UP as SMALL
from memory import peak
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from torch_mmd_losses import mmd2
from torch_mmd_losses.pairs.tiles import Block, tile_side, tiles, tiles_at_once

CASES: tuple[tuple[Size, str], ...] = (
    ((512, 16), "5 RBF"),
    ((2048, 16), "5 RBF"),
    ((1024, 128), "RBF"),
    ((4096, 128), "RBF"),
)
QUICK: tuple[tuple[Size, str], ...] = (((300, 4), "RBF"),)
BUSY_CASE: tuple[Size, str] = ((4096, 128), "RBF")
BUSY = 5
"""Number of busy processes."""

CORES = "all"
"""The cores that are measured on, as the page says it."""

SPEED_UPS = {(512, 16): 1.6, (2048, 16): 1.6, (1024, 128): 1.8, (4096, 128): 1.8}
MODELLED = (8, 32, 64)
GRAIN = 2**15
"""Elements of an elementwise operator or a sum that PyTorch gives to a thread at least."""

PASSES = {"RBF": 0, "5 RBF": 18}
"""Elementwise passes of a kernel over a tile, besides one exponential: squarings, and sums of values and slopes."""

TURN = 0.1
"""Seconds of one turn of a candidate."""

WARM_UP = 0.3
"""Seconds for which several threads work before a turn."""

FLOPS_PER_ELEMENT = 6
"""FLOP of a matrix product that take as long as one element of a pass: 0.06 ns at 95 GFLOP/s."""


Key = tuple[str, int]
"""The name of a candidate, and its number of threads."""


class Region(NamedTuple):
    """An operator: the elements of its largest matrix, and the FLOP of a product, else zero."""

    elements: int
    flops: int

    def threads(self, most: int) -> int:
        """Return how many threads share it."""
        return max(1, min(most, self.elements // GRAIN))

    @property
    def work(self) -> float:
        """The work in elements of a pass."""
        return self.elements + self.flops / FLOPS_PER_ELEMENT


class Overheads(NamedTuple):
    """Seconds that two threads lose at the start and the end of an operator, and seconds of a small operator."""

    shared: float
    small: float


class _Regions(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[Region] = []

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Run an operator and note its work."""
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        tensors = [x for x in tree_leaves((args, result)) if isinstance(x, Tensor)]
        elements = max((x.numel() for x in tensors), default=0)
        if name not in FREE:
            self.found.append(Region(elements, _flops(name, [x for x in tree_leaves(args) if isinstance(x, Tensor)])))
        return result


def _flops(name: str, tensors: list[Tensor]) -> int:
    if name not in ("mm", "addmm", "addmm_"):
        return 0
    a, b = tensors[-2:]
    return 2 * a.shape[0] * a.shape[1] * b.shape[1]


def operators(work: Callable[[], object], threads: int) -> list[Region]:
    """Return the operators of a call if PyTorch has this number of threads, which need not exist."""
    with mock.patch.object(torch, "get_num_threads", return_value=threads), _Regions() as mode:
        work()
    return mode.found


def ours(pair: Pair, real: Tensor, fake: Tensor) -> Callable[[], object]:
    """Return a function that computes the loss of this library and its gradient."""
    return step(lambda x, y: mmd2(x, y, pair.ours, estimator="biased"), real, fake)


def bare(name: str, real: Tensor, fake: Tensor) -> Callable[[], object]:
    """Return a function that does the same products and passes over matrices in the same tiles, and nothing else."""
    # Scaled so that no exponential overflows or gets subnormal, which would be slow.
    sets = [scores.detach() / scores.shape[1] for scores in (real, fake)]
    gradients = [torch.zeros_like(scores) for scores in sets]

    def run() -> None:
        for i, j in ((0, 0), (0, 1), (1, 1)):
            block = Block(sets[i], sets[j], 0, distinct=False, same=i == j, symmetric=i == j)
            at_once = tiles_at_once(None, real.device)
            for rows, columns in tiles(block, tile_side(None, real.device), at_once, merged=True):
                tile = sets[i][rows] @ sets[j][columns].T
                tile.exp2_()
                for _ in range(PASSES[name]):
                    tile.mul_(1.0)
                tile.sum(1)
                gradients[i][rows].addmm_(tile, sets[j][columns])
                above = min(rows.stop, columns.start) - rows.start if i == j else len(tile)
                if above > 0:
                    tile[:above].sum(0)
                    gradients[j][columns].addmm_(tile[:above].T, sets[i][rows][:above])

    return run


def times_of(candidates: Mapping[Key, Callable[[], object]], seconds: float, *, alone: bool = True) -> dict[Key, float]:
    """Return the median seconds of each candidate, by its name and number of threads.

    The candidates take turns. If `alone`, only the half of the turns of each in which other processes ran least counts.
    """
    calls, turns = {}, {}
    for key, work in candidates.items():
        torch.set_num_threads(key[1])
        work()
        calls[key] = max(1, int(min(TURN, seconds) / max(_clock(work, 1), 1e-6)))
        turns[key] = [_turn(work, calls[key])]
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        for key, work in candidates.items():
            torch.set_num_threads(key[1])
            _warm_up(work, min(WARM_UP, seconds) if alone and key[1] > 1 else 0.0)
            turns[key].append(_turn(work, calls[key]))
    torch.set_num_threads(1)
    counted = {key: sorted(values)[: -(-len(values) // 2)] if alone else values for key, values in turns.items()}
    return {key: median(taken for _, taken in values) for key, values in counted.items()}


def _warm_up(work: Callable[[], object], seconds: float) -> None:
    """Wake the threads and fill the caches."""
    start = time.perf_counter()
    work()
    while time.perf_counter() - start < seconds:
        work()


def _turn(work: Callable[[], object], calls: int) -> tuple[float, float]:
    """Return the cores that other processes used during some calls, in steps of a tenth, and the seconds of a call."""
    others, start = _busy() - time.process_time(), time.perf_counter()
    taken = _clock(work, calls)
    others, elapsed = _busy() - time.process_time() - others, time.perf_counter() - start
    return round(max(others, 0.0) / elapsed, 1), taken


def _busy() -> float:
    """Return the seconds in which any core did anything, where the system tells."""
    try:
        numbers = [int(number) for number in Path("/proc/stat").read_text(encoding="utf-8").split("\n")[0].split()[1:]]
    except OSError:
        return time.process_time()
    return (sum(numbers[:8]) - numbers[3] - numbers[4]) / os.sysconf("SC_CLK_TCK")


def _clock(work: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - start) / calls


def peak_of(n: int, d: int, name: str, threads: int, seed: int) -> float:
    """Return the bytes that a loss with its gradient needs, measured in this process, which should be a new one."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    pair = kernels(d)[name]
    ours(pair, *samples(SMALL, d, seed))()
    work = ours(pair, *samples(n, d, seed))
    found = peak(work).bytes
    torch.set_num_threads(before)
    return found


def overheads(seconds: float) -> Overheads:
    """Measure the overhead of operators."""
    tiny, small = torch.ones(16), torch.ones(2 * GRAIN)
    found = times_of(
        {
            ("tiny", 1): lambda: tiny.mul_(1.0),
            ("small", 1): lambda: small.mul_(1.0),
            ("small", 2): lambda: small.mul_(1.0),
        },
        seconds,
    )
    return Overheads(max(found["small", 2] - found["small", 1] / 2, 0.0), found["tiny", 1])


def modelled(alone: list[Region], several: list[Region], seconds: float, threads: int, lost: Overheads) -> float:
    """Return the time of one thread over that of several, by the model.

    Args:
        alone: the operators with one thread.
        several: the operators with `threads` threads.
        seconds: the time of one thread.
        threads: how many threads share an operator at most.
        lost: the overhead of operators.
    """
    unit = (seconds - len(alone) * lost.small) / sum(region.work for region in alone)
    total = len(several) * lost.small
    for region in several:
        k = region.threads(threads)
        total += unit * region.work / k + lost.shared * math.log2(k)
    return seconds / total


def beside_busy_processes(options: Options) -> Record:
    """Return the seconds of two threads while other processes keep all cores busy."""
    (n, d), name = QUICK[0] if options.quick else BUSY_CASE
    progress(n, d, "with other busy processes")
    real, fake = samples(n, d, options.seed)
    pair = kernels(d)[name]
    command = [sys.executable, "-S", "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(1 if options.quick else BUSY)]
    try:
        found = times_of(
            {("ours", 2): ours(pair, real, fake), ("plain", 2): step(plain(pair.by_hand), real, fake)},
            3 * options.seconds,
            alone=False,
        )
    finally:
        for process in processes:
            process.kill()
            process.wait()
    seconds = {way: found[way, 2] for way in ("ours", "plain")}
    return {"n": n, "d": d, "kernel": name, "busy": len(processes), "threads": 2, **seconds}


def measure(options: Options) -> list[Record]:
    """Return a record for each case and number of threads, one with other busy processes, and those of the model."""
    cases = QUICK if options.quick else tuple(case for case in CASES if case[0][0] <= (options.up_to or case[0][0]))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    numbers = [1, 2, *(number for number in (4, 8, 16, 32, 64) if number <= cores)]
    lost = overheads(options.seconds / 5)
    records: list[Record] = []
    for (n, d), name in cases:
        progress(n, d, name)
        real, fake = samples(n, d, options.seed)
        pair = kernels(d)[name]
        works = {
            "ours": ours(pair, real, fake),
            "plain": step(plain(pair.by_hand), real, fake),
            "bare": bare(name, real, fake),
        }
        found = times_of({(way, k): work for k in numbers for way, work in works.items()}, 3 * options.seconds)
        case: Record = {"n": n, "d": d, "kernel": name}
        for k in numbers:
            arguments = (n, d, name, k, options.seed)
            memory = peak_of(*arguments) if options.quick else printed_by(__file__, *arguments)
            records.append({**case, "threads": k, **{way: found[way, k] for way in works}, "bytes": memory})
        alone = {way: operators(works[way], 1) for way in ("ours", "plain")}
        for k in (*numbers[1:], *MODELLED):
            counted = {"ours": operators(works["ours"], k), "plain": alone["plain"]}
            speed_ups = {way: modelled(alone[way], counted[way], found[way, 1], k, lost) for way in alone}
            shared = [region for region in counted["ours"] if region.threads(k) > 1]
            elements, flops = sum(region.elements for region in shared), sum(region.flops for region in shared)
            work = {"operators": len(shared), "elements": elements, "flops": flops}
            records.append({**case, "modelled": k, **work, **speed_ups, **lost._asdict()})
    if not options.up_to:
        records.append(beside_busy_processes(options))
    return records


def speed_up(records: list[Record], way: str, record: Record) -> float:
    """Return the time of one thread over that of the threads of a record."""
    alone = next(r for r in records if _place(r) == _place(record) and r.get("threads") == 1 and "busy" not in r)
    return float(alone[way] / record[way])


def _place(record: Record) -> tuple[int, int, str]:
    return record["n"], record["d"], record["kernel"]


def _cells(record: Record) -> list[str]:
    return [f"{record['n']}, {record['d']}", record["kernel"]]


def table(records: list[Record]) -> str:
    """Return a table of times and speed-ups, one of the model, and a sentence on busy processes."""
    measured = [r for r in records if "threads" in r and "busy" not in r]
    rows = [
        [
            *_cells(r),
            str(r["threads"]),
            *(f"{r[way] * 1e3:.3g}" for way in ("ours", "plain")),
            *(f"{speed_up(records, way, r):.2f}" for way in ("ours", "plain", "bare")),
            f"{r['bytes'] / 1e6:.0f}" if "bytes" in r else "",
        ]
        for r in measured
    ]
    header = [
        "samples, d",
        "kernel",
        "threads",
        "`mmd2` [ms]",
        "plain [ms]",
        "speed-up of `mmd2`",
        "of plain",
        "of bare",
        "memory of `mmd2` [MB]",
    ]
    parts = [markdown(header, rows)]
    model = [r for r in records if "modelled" in r]
    rows = [
        [
            *_cells(r),
            str(r["modelled"]),
            str(r["operators"]),
            f"{r['elements'] / max(1, r['operators']) / 1e3:.0f}",
            f"{r['flops'] / 1e6:.0f}",
            *(f"{r[way]:.1f}" for way in ("ours", "plain")),
        ]
        for r in model
    ]
    header = ["samples, d", "kernel", "threads", "shared operators", "1000 elements of each", "MFLOP of all"]
    if model:
        shared, small = (f"{model[0][name] * 1e6:.1f} us" for name in Overheads._fields)
        parts.append(f"The model, from {shared} for the start and end with two threads and {small} for an operator:")
        parts.append(markdown([*header, "modelled speed-up of `mmd2`", "of plain"], rows))
    parts += [
        f"With {r['busy']} other busy processes, `mmd2` takes {r['ours'] / r['plain']:.2f} of the time of plain "
        f"autograd, both with {r['threads']} threads, at ({r['n']}, {r['d']}), {r['kernel']}."
        for r in records
        if "busy" in r
    ]
    return "\n\n".join(parts)


def targets(records: list[Record]) -> list[Target]:
    """Return the promised speed-ups, and the time with other busy processes."""
    found = []
    for (n, d), name in CASES:
        record = next(
            (r for r in records if _place(r) == (n, d, name) and r.get("threads") == 2 and "busy" not in r), None
        )
        measured = None if record is None else speed_up(records, "ours", record)
        found.append(Target(f"speed-up by a second thread, ({n}, {d}), {name}", SPEED_UPS[n, d], measured, least=True))
    (n, d), name = BUSY_CASE
    ratio = next((r["ours"] / r["plain"] for r in records if "busy" in r and _place(r) == (n, d, name)), None)
    return [*found, Target(f"with {BUSY} other busy processes, `mmd2` / plain, ({n}, {d}), {name}", 1.0, ratio)]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(peak_of(*json.loads(sys.argv[2]))))
    else:
        main(sys.modules[__name__])
