"""How much memory does a loss with its gradient need beyond the scores, and how does that grow?

Each number comes from a separate process: the highest resident memory during the work, minus the resident memory just
before it. A small run of the same work comes first, so that code that is loaded once is not counted. Work whose memory
grows with the number of pairs is not run if it would need more than 6 GB.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from by_hand import Loss, Pair, kernels, plain, samples, step
from common import Options, Record, Target, cpu_seconds, main, markdown, printed_by, progress
from torch import Tensor

from torch_mmd_losses import Kernel, MMDLoss, mmd2

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = ((1024, 64), (4096, 64), (16384, 64), (4096, 128))
QUICK = (64, 2)
LARGEST = (100_000, 64)
WARM_UP = 300
"""Samples of the run that loads code: enough for the path that large samples take."""
KERNELS = ("RBF", "5 RBF", "5 RQ")
MOST = 6e9
LIMITS = {(4096, 128): 64e6, (16384, 64): 100e6}
LINEAR = 1.1
"""The largest power of the number of samples that passes for linear growth."""


class Cauchy(Kernel):
    """A kernel as users write their own."""

    def from_sq_dist(self, sq_dist: Tensor) -> Tensor:
        """Return the kernel's values."""
        return 1 / (1 + sq_dist / 64)


def second_derivative(loss: Loss) -> Loss:
    """Return a gradient penalty: its gradient is a second derivative of the loss."""

    def penalty(real: Tensor, fake: Tensor) -> Tensor:
        gradients = torch.autograd.grad(loss(real, fake), (real, fake), create_graph=True)
        return torch.stack([gradient.square().sum() for gradient in gradients]).sum()

    return penalty


def jobs(d: int) -> dict[str, Callable[[Tensor, Tensor], object]]:
    """Return everything whose memory is measured."""

    def ours(kernel: Kernel) -> Loss:
        return lambda real, fake: mmd2(real, fake, kernel)

    def with_gradient(loss: Loss) -> Callable[[Tensor, Tensor], object]:
        return lambda real, fake: step(loss, real, fake)()

    pairs: dict[str, Pair] = kernels(d)
    loss = MMDLoss(pairs["RBF"].ours)
    return {
        **{f"mmd2, {name}": with_gradient(ours(pairs[name].ours)) for name in KERNELS},
        "both, RBF": with_gradient(lambda real, fake: torch.stack(loss.both(real, fake)).sum()),
        "mmd2, a user's kernel": with_gradient(ours(Cauchy())),
        "second derivative, RBF": with_gradient(second_derivative(ours(pairs["RBF"].ours))),
        "terms, RBF": loss.terms,
        **{f"plain, {name}": with_gradient(plain(pairs[name].by_hand)) for name in KERNELS},
    }


class Peak(NamedTuple):
    """Extra bytes and CPU seconds of a piece of work."""

    bytes: float
    seconds: float


def resident(line: str) -> float | None:
    """Return a line of the kernel's account of this process, in bytes: `VmRSS` is resident now, `VmHWM` at most."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    return next((1024.0 * int(entry.split()[1]) for entry in status.splitlines() if entry.startswith(line)), None)


def highest() -> float:
    """Return the most bytes that were ever resident, where the system does not keep an account by process."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0)


def peak(work: Callable[[], object]) -> Peak:
    """Return the memory that a call of `work` needs in addition to the present memory of this process."""
    before = resident("VmRSS")
    if before is not None and os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets VmHWM
    else:
        before = highest()
    seconds = cpu_seconds(work)
    after = resident("VmHWM")
    return Peak((highest() if after is None else after) - before, seconds)


def peak_of(job: str, n: int, d: int, seed: int) -> Peak:
    """Return the memory of a job, measured in this process, which should be a new process."""
    torch.set_num_threads(1)
    work = jobs(d)[job]
    work(*samples(WARM_UP, d, seed))
    real, fake = samples(n, d, seed)
    return peak(lambda: work(real, fake))


def in_new_process(job: str, n: int, d: int, seed: int) -> Peak:
    """Return the memory of a job, measured in a new process with the default allocator."""
    return Peak(*printed_by(__file__, job, n, d, seed))


def measure(options: Options) -> list[Record]:
    """Return a record for each job and size; `bytes` is None if it was not run."""
    if options.quick:
        return [
            {"job": job, "n": QUICK[0], "d": QUICK[1], **peak_of(job, *QUICK, options.seed)._asdict()}
            for job in jobs(2)
        ]
    records: list[Record] = []
    for d in sorted({d for _, d in SIZES}):
        for job in jobs(d):
            per_pair = 0.0
            for n in sorted(n for n, width in options.sizes(SIZES, []) if width == d):
                record: Record = {"job": job, "n": n, "d": d}
                if per_pair * n**2 > MOST:
                    records.append({**record, "bytes": None, "expected": per_pair * n**2})
                    continue
                progress(n, d, job)
                found = in_new_process(job, n, d, options.seed)
                per_pair = found.bytes / n**2
                records.append({**record, **found._asdict()})
    if options.largest:
        progress(*LARGEST)
        found = in_new_process("mmd2, RBF", *LARGEST, options.seed)
        records.append({"job": "mmd2, RBF", "n": LARGEST[0], "d": LARGEST[1], **found._asdict()})
    return records


def growth(records: list[Record], job: str) -> float | None:
    """Return the power of the number of samples that memory grew with between the two largest sizes of `SIZES`."""
    sizes = {r["n"]: r["bytes"] for r in records if r["job"] == job and (r["n"], r["d"]) in SIZES and r["d"] == 64}
    if not sizes.get(16384) or not sizes.get(4096):
        return None
    return math.log(sizes[16384] / sizes[4096]) / math.log(16384 / 4096)


def table(records: list[Record]) -> str:
    """Return a line for each job, megabytes by size."""
    places = list(dict.fromkeys((r["n"], r["d"]) for r in records))
    rows = []
    for job in dict.fromkeys(r["job"] for r in records):
        found = {(r["n"], r["d"]): r for r in records if r["job"] == job}
        power = growth(records, job)
        cells = [_megabytes(found.get(place)) for place in places]
        rows.append([job, *cells, "" if power is None else f"N^{power:.2f}"])
    lines = markdown(["MB at samples, d", *(f"{n}, {d}" for n, d in places), "growth"], rows)
    largest = [r for r in records if (r["n"], r["d"]) == LARGEST]
    return "\n\n".join([lines, *(f"{LARGEST} took {r['seconds']:.0f} s of one core." for r in largest)])


def _megabytes(record: Record | None) -> str:
    if record is None:
        return ""
    if record["bytes"] is None:
        return f"not run (about {record['expected'] / 1e6:.0f})"
    return f"{record['bytes'] / 1e6:.0f}"


def targets(records: list[Record]) -> list[Target]:
    """Return the promised megabytes and growth."""
    found = {(r["job"], r["n"], r["d"]): r["bytes"] for r in records}
    result = []
    for (n, d), limit in LIMITS.items():
        for kernel in KERNELS:
            measured = found.get((f"mmd2, {kernel}", n, d))
            result.append(
                Target(f"extra MB, ({n}, {d}), {kernel}", limit / 1e6, None if measured is None else measured / 1e6)
            )
    for kernel in KERNELS:
        result.append(
            Target(f"power of N that memory grows with, {kernel}", LINEAR, growth(records, f"mmd2, {kernel}"))
        )
    ran = found.get(("mmd2, RBF", *LARGEST))
    return [*result, Target(f"extra MB, {LARGEST}, RBF: it runs", MOST / 1e6, None if ran is None else ran / 1e6)]


def draw(records: list[Record], figure: Figure) -> None:
    """Draw memory over the number of samples."""
    axes = figure.subplots()
    for job in dict.fromkeys(r["job"] for r in records):
        ran = [r for r in records if r["job"] == job and r["d"] in (QUICK[1], 64) and r["bytes"] is not None]
        points = sorted((r["n"], max(r["bytes"], 4096) / 1e6) for r in ran)  # resident memory is counted in pages
        style = "--" if job.startswith("plain") else "-"
        axes.plot([n for n, _ in points], [size for _, size in points], style, marker="o", markersize=4, label=job)
    axes.set(xscale="log", yscale="log", xlabel="samples of each group (d = 64)", ylabel="extra memory [MB]")
    numbers = sorted({r["n"] for r in records})
    axes.set_xticks(numbers, [str(n) for n in numbers])
    axes.minorticks_off()
    axes.set_title("Memory of a loss with its gradient")
    figure.legend(loc="outside right upper", fontsize="small")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(peak_of(*json.loads(sys.argv[2]))))
    else:
        main(sys.modules[__name__])
