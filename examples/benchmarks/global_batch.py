"""How much work and memory is left for a process if several share the pairs of a batch?

The batch is the same for all rows of the table and divided evenly among gloo processes on this machine. Each computes
`MMDLoss(global_batch=True)` of its share, and what the first of them did is shown: FLOP of matrix products and bytes of
results as in `counts`, the highest resident memory beyond that before, its CPU time, and the scores that it received.

Rows marked "on paper" are not measured. A process has `N / W` rows of either group and, for each, all `2 N` columns: a
matrix product of `d` multiplications and additions for the distance of a pair and one for its pull, `16 d N^2 / W` FLOP in
all. One process alone sees each pair within a group once for both orders and needs `12 d N^2`. So `W` processes have
`4 / (3 W)` of that each, and the scores to be received grow towards `2 N d` numbers and no further.
"""

from __future__ import annotations

import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from by_hand import kernels, samples, step
from common import Options, Record, Target, cpu_seconds, main, markdown, progress
from counts import count
from memory import resident

from torch_mmd_losses import MMDLoss

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = (4096, 64)
QUICK = (16, 2)
PROCESSES = (1, 2, 4)
ON_PAPER = (8, 16, 32, 64)
MOST = 1.05
"""How much more than `4 / (3 W)` of the work of one process counts as that: tiles at the border are not all full."""


def share(rank: int, world: int, port: int, n: int, d: int, seed: int, folder: str) -> None:
    """Compute the loss of one process's share of the batch and save what it took."""
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    real, fake = (x.detach().chunk(world)[rank].requires_grad_() for x in samples(n, d, seed))
    loss = MMDLoss(kernels(d)["RBF"].ours, global_batch=True)
    work = step(loss.generator, real, fake)
    counted = count(work)
    before = resident("VmRSS")
    if before is not None:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # VmHWM starts anew
    seconds = cpu_seconds(work)
    after = resident("VmHWM")
    extra = None if before is None or after is None else after - before
    found = {"flops": counted.flops, "allocated": counted.bytes, "seconds": seconds, "extra": extra}
    torch.save(found, Path(folder) / f"{rank}.pt")
    if world > 1:
        dist.barrier()  # a process that leaves early aborts the others
        dist.destroy_process_group()


def run(world: int, n: int, d: int, seed: int) -> Record:
    """Return what the first of `world` processes took."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(share, args=(world, port, n, d, seed, folder), nprocs=world)
        return dict(torch.load(Path(folder) / "0.pt", weights_only=True))


def measure(options: Options) -> list[Record]:
    """Return a record for each number of processes."""
    records = []
    for n, d in options.sizes([SIZE], [QUICK]):
        for world in PROCESSES[:2] if options.quick else PROCESSES:
            progress(n, d, world)
            received = 4 * 2 * (n - n // world) * d
            records.append({"n": n, "d": d, "processes": world, "received": received, **run(world, n, d, options.seed)})
        alone = records[0]["flops"]
        for world in ON_PAPER:
            received = 4 * 2 * (n - n // world) * d
            flops = round(alone * 4 / (3 * world))
            records.append({"n": n, "d": d, "processes": world, "received": received, "flops": flops})
    return records


def table(records: list[Record]) -> str:
    """Return a line for each number of processes."""
    rows = []
    for r in records:
        alone = next(other["flops"] for other in records if other["n"] == r["n"])
        measured = [
            f"{r['allocated'] / 1e6:.0f}" if "allocated" in r else "on paper",
            f"{r['extra'] / 1e6:.0f}" if r.get("extra") is not None else "",
            f"{r['seconds'] * 1e3:.0f}" if "seconds" in r else "",
        ]
        work = [f"{r['flops'] / 1e9:.3g}", f"{r['flops'] / alone:.3f}"]
        rows.append([str(r["processes"]), f"{r['n']}, {r['d']}", *work, *measured, f"{r['received'] / 1e6:.2f}"])
    header = [
        "processes",
        "samples, d",
        "GFLOP of each",
        "of one alone",
        "allocated [MB]",
        "extra memory [MB]",
        "CPU [ms]",
    ]
    return markdown([*header, "received [MB]"], rows)


def targets(records: list[Record]) -> list[Target]:
    """Return the promised share of the work."""
    found = {r["processes"]: r["flops"] for r in records if (r["n"], r["d"]) == SIZE and "seconds" in r}
    return [
        Target(
            f"work of one of {world} processes beside one alone, times {world}",
            4 / 3 * MOST,
            found[world] / found[1] * world if world in found else None,
        )
        for world in PROCESSES[1:]
    ]


def draw(records: list[Record], figure: Figure) -> None:
    """Draw the share of the work over the number of processes."""
    axes = figure.subplots()
    alone = records[0]["flops"]
    for label, kept, marker in (("measured", True, "o"), ("on paper", False, "x")):
        points = [(r["processes"], r["flops"] / alone) for r in records if ("seconds" in r) is kept]
        axes.plot([w for w, _ in points], [share for _, share in points], marker, label=label)
    worlds = [r["processes"] for r in records]
    axes.plot(worlds, [1 / world for world in worlds], ":", color="grey", label="1 / processes")
    axes.set(xscale="log", yscale="log", xlabel="processes", ylabel="work of each, beside one alone")
    axes.set_xticks(worlds, [str(world) for world in worlds])
    axes.minorticks_off()
    axes.set_title("Work of a process with global_batch")
    figure.legend(loc="outside right upper", fontsize="small")


if __name__ == "__main__":
    main(sys.modules[__name__])
