"""How much work and memory is left for a process if several share the pairs of a batch?

The batch is the same for all rows of the table and divided evenly among new gloo processes on this machine. Each
computes `MMDLoss(global_batch=True)` of its share with the gradient. The table shows the work of the first process:
FLOP of matrix products and bytes of results as in `counts`, extra memory as in `memory` (with freed memory kept, as for
times), CPU time, which includes sending and receiving, and bytes of scores, sizes and sums received from the others.

A process has `N / W` real and `N / W` fake rows and, for each, all `2 N` columns. A pair takes one product of `d`
multiplications and additions for its distance and one for its pull: `16 d N^2 / W` FLOP. One process alone computes
distances within a group once for both orders and needs `12 d N^2`. So each of `W` processes does `4 / (3 W)` of this
work: one of two processes does two thirds of it. The norms add `16 N^2 / W` and `8 N^2`, as two more columns in the
product of the distances, and alone the tiles on the diagonal of a group are computed whole.

Extra memory is that of tiles and of the scores of all processes, so it hardly falls. The received scores take less than
`8 N d` bytes.

Rows "on paper" are not measured: their FLOP are those of the row with the most processes, divided among more.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from by_hand import kernels, samples, step
from common import Options, Record, Target, cpu_seconds, main, markdown, progress
from counts import count
from memory import WARM_UP, peak
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from torch_mmd_losses import MMDLoss

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = (4096, 64)
QUICK = (16, 2)
PROCESSES = (1, 2, 4)
ON_PAPER = (8, 16, 32, 64)
ROUNDS = 5
MOST = 1.02
"""How much more than `4 / (3 W)` of the work of one process counts as that: shares compute more norms."""


class _Received(TorchDispatchMode):
    """Adds up the bytes that collectives bring from other processes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Run an operator and count what it receives."""
        if func.namespace == "c10d":
            self.bytes += _bytes(args[0])
            if "gather" in func.overloadpacket.__name__:
                self.bytes -= _bytes(args[1])  # the part of this process
        return func(*args, **(kwargs or {}))


def _bytes(tensors: list[Tensor] | list[list[Tensor]]) -> int:
    return sum(tensor.nbytes for tensor in tree_leaves(tensors))


def received(work: Callable[[], object]) -> int:
    """Return the bytes that a call of `work` gets from other processes."""
    with _Received() as counted:
        work()
    return counted.bytes


def scores_on_paper(world: int, n: int, d: int) -> int:
    """Return the bytes of the scores of all other processes, in float32."""
    return 4 * 2 * (n - n // world) * d


def share(rank: int, world: int, n: int, d: int, seed: int) -> Record:
    """Return the cost of the loss of one process's share of the batch."""
    loss = MMDLoss(kernels(d)["RBF"].ours, global_batch=True)
    step(loss.generator, *samples(WARM_UP, d, seed))()
    real, fake = (x.detach().chunk(world)[rank].clone().requires_grad_() for x in samples(n, d, seed))
    work = step(loss.generator, real, fake)
    extra = peak(work).bytes
    counted = count(work)
    return {
        "flops": counted.flops,
        "allocated": counted.bytes,
        "extra": extra,
        "seconds": median(cpu_seconds(work) for _ in range(ROUNDS)),
        "received": received(work),
    }


def process(rank: int, world: int, n: int, d: int, seed: int, folder: str) -> None:
    """Join the group, compute a share and save its cost."""
    torch.set_num_threads(1)
    meeting = (Path(folder) / "meeting").as_uri()
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    torch.save(share(rank, world, n, d, seed), Path(folder) / f"{rank}.pt")
    dist.barrier()  # a process that leaves early aborts the others
    os._exit(0)  # gloo's threads can abort a process that ends the group, or keep it for ever


def first_of(world: int, n: int, d: int, seed: int) -> Record:
    """Return the cost in the first of `world` new processes."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(process, args=(world, n, d, seed, folder), nprocs=world)
        return dict(torch.load(Path(folder) / "0.pt", weights_only=True))


def measure(options: Options) -> list[Record]:
    """Return a record for each number of processes; on paper, one without seconds."""
    records: list[Record] = []
    for n, d in options.sizes([SIZE], [QUICK]):
        for world in PROCESSES[:2] if options.quick else PROCESSES:
            progress(n, d, world)
            # A quick run starts no process that it can do without.
            here = options.quick and world == 1
            found = share(0, 1, n, d, options.seed) if here else first_of(world, n, d, options.seed)
            records.append({"n": n, "d": d, "processes": world, **found})
        most = records[-1]
        for world in ON_PAPER:
            flops = most["flops"] * most["processes"] // world
            records.append(
                {"n": n, "d": d, "processes": world, "flops": flops, "received": scores_on_paper(world, n, d)}
            )
    return records


def table(records: list[Record]) -> str:
    """Return a line for each number of processes."""
    rows = []
    for r in records:
        measured = "seconds" in r
        cells = [f"{r['flops'] / 1e9:.3g}", f"{r['flops'] / records[0]['flops']:.3f}"]
        cells += [f"{r[name] / 1e6:.0f}" if measured else "" for name in ("allocated", "extra")]
        cells += [f"{r['seconds'] * 1e3:.3g}" if measured else "", f"{r['received'] / 1e6:.2f}"]
        rows.append([f"{r['processes']}{'' if measured else ', on paper'}", f"{r['n']}, {r['d']}", *cells])
    header = ["processes", "samples, d", "GFLOP of each", "/ one alone", "allocated [MB]", "extra memory [MB]"]
    return markdown([*header, "CPU time [ms]", "received [MB]"], rows)


def targets(records: list[Record]) -> list[Target]:
    """Return the promised share of the work."""
    found = {r["processes"]: r["flops"] for r in records if (r["n"], r["d"]) == SIZE and "seconds" in r}
    return [
        Target(
            f"FLOP of one of {world} processes / one alone, times {world}",
            round(4 / 3 * MOST, 2),
            found[world] / found[1] * world if world in found else None,
        )
        for world in PROCESSES[1:]
    ]


def draw(records: list[Record], figure: Figure) -> None:
    """Draw the shares of work and time over the number of processes."""
    if not records:
        return
    axes = figure.subplots()
    measured = [r for r in records if "seconds" in r]
    on_paper = [r for r in records if "seconds" not in r]
    for label, chosen, what, style in (
        ("FLOP", measured, "flops", "o"),
        ("FLOP, on paper", on_paper, "flops", "x"),
        ("CPU time", measured, "seconds", "s"),
    ):
        shares = [r[what] / measured[0][what] for r in chosen]
        axes.plot([r["processes"] for r in chosen], shares, style, label=label)
    worlds = [r["processes"] for r in records]
    axes.plot(worlds, [1 / world for world in worlds], ":", color="grey", label="1 / processes")
    axes.set(xscale="log", yscale="log", xlabel="processes", ylabel="each / one alone")
    axes.set_xticks(worlds, [str(world) for world in worlds])
    axes.minorticks_off()
    axes.set_title("Work of a process with global_batch")
    figure.legend(loc="outside right upper", fontsize="small")


if __name__ == "__main__":
    main(sys.modules[__name__])
