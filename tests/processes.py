"""Processes of a group that computes together."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

Result = TypeVar("Result")


def start(function: Callable[..., None], world: int, *args: Any) -> None:
    """Call `function(rank, *args)` in as many new processes as `world`, and wait for them.

    They are forked from a process that has imported torch, which takes each of them seconds otherwise.
    """
    libraries = ["torch._dynamo", "torch.nn.parallel", "torch.distributed.fsdp", "lightning_fabric", "tyro"]
    multiprocessing.set_forkserver_preload(libraries)
    mp.start_processes(function, args, nprocs=world, start_method="forkserver")


def leave() -> None:
    """End a process of a group once all of them have come here, at the end of the function that :func:`start` calls.

    The process ends at once. Otherwise the end of a function that has a network in `DistributedDataParallel` can wait
    for ever: its destructor ends the group with Python's lock held, while a thread of gloo waits for this lock.
    """
    dist.barrier()  # a process that leaves early aborts the others
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def in_a_fork(function: Callable[[], object]) -> int:
    """Call a function in a fork of this process, and return its exit status, or minus the signal that ended it."""
    child = os.fork()
    if not child:
        status = 1
        try:
            function()
            status = 0
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            else:
                status = end.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def meeting_file(folder: Path) -> str:
    """Return where the processes of a group find each other: a file of their own, since others may take a free port."""
    return (folder / "meeting").as_uri()


def in_threads(
    monkeypatch: pytest.MonkeyPatch, modules: Sequence[ModuleType], world: int, function: Callable[[int], Result]
) -> list[Result]:
    """Call `function(rank)` in threads that stand in for processes, and return the results.

    Args:
        monkeypatch: undoes what this function does.
        modules: the modules whose `dist` is replaced by collectives among the threads.
        world: number of threads.
        function: what each of them runs.
    """
    barrier, slots, rank = threading.Barrier(world), [torch.empty(0)] * world, threading.local()

    def exchange(x: torch.Tensor) -> list[torch.Tensor]:
        slots[rank.number] = x.detach().clone()
        barrier.wait()
        everything = list(slots)
        barrier.wait()
        return everything

    def all_gather(out: list[torch.Tensor], x: torch.Tensor) -> None:
        for mine, theirs in zip(out, exchange(x), strict=True):
            mine.copy_(theirs)

    def all_reduce(x: torch.Tensor) -> None:
        x.copy_(torch.stack(exchange(x)).sum(0))

    collectives = SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        get_rank=lambda: rank.number,
        get_world_size=lambda: world,
        all_gather=all_gather,
        all_reduce=all_reduce,
    )
    for module in modules:
        monkeypatch.setattr(module, "dist", collectives)

    def run(number: int) -> Result:
        rank.number = number
        try:
            return function(number)
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(run, range(world)))
