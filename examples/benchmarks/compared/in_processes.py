"""Probes in two processes of a group."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from compared.libraries import LIBRARIES, Library
from compared.probes import ROUNDING, Answer, samples, unbiased

WORLD = 2


def _parts() -> list[tuple[torch.Tensor, torch.Tensor]]:
    x, y = samples(8, 8)
    return list(zip(x.chunk(WORLD), y.chunk(WORLD), strict=True))


def _slope(library: Library, rank: int) -> torch.Tensor:
    """Return the gradient of a parameter, averaged over the processes as DDP does."""
    assert library.shared is not None
    x, y = _parts()[rank]
    shift = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(library.shared(x, y + shift), shift)
    dist.all_reduce(slope)
    return slope / WORLD


def process(rank: int, name: str, folder: str) -> None:
    """Join the group and save what the library computes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=(Path(folder) / "meeting").as_uri(), rank=rank, world_size=WORLD)
    library = LIBRARIES[name]()
    found = {}
    if library.shared is not None:
        found["slope"] = _slope(library, rank)
    if library.accumulated is not None:
        found["value"] = torch.tensor(library.accumulated([_parts()[rank]]))
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.barrier()  # a process that leaves early aborts the others
    os._exit(0)  # gloo's threads can abort a process that ends the group, or keep it for ever


def _found(name: str) -> dict[str, torch.Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        spawn(process, args=(name, folder), nprocs=WORLD)
        return dict(torch.load(Path(folder) / "0.pt", weights_only=True))


def has_loss_of_joint_batch(name: str) -> Answer:
    """Whether averaged gradients of parts are the gradient of MMD^2 of the joint batch."""
    library = LIBRARIES[name]()
    if library.shared is None:
        return None
    x, y = samples(8, 8)
    shift = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(unbiased(library.kernel, x, y + shift), shift)
    return bool((_found(name)["slope"] - expected).abs().max() < ROUNDING)


def accumulates(name: str) -> Answer:
    """Whether a metric object has the value of all batches after it was given them one by one."""
    library = LIBRARIES[name]()
    if library.accumulated is None:
        return None
    value = library.accumulated(_parts())
    return value == value  # not NaN


def shares_its_state(name: str) -> Answer:
    """Whether the metric of two processes, with one batch each, has the value of one with both batches."""
    library = LIBRARIES[name]()
    if library.accumulated is None:
        return None
    return abs(float(_found(name)["value"]) - library.accumulated(_parts())) < 1e-6
