"""Processes of a group that computes together."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.multiprocessing as mp


def start(function: Callable[..., None], world: int, *args: Any) -> None:
    """Call `function(rank, *args)` in as many new processes as `world`, and wait for them.

    They are forked from a process that has imported torch, which takes each of them seconds otherwise.
    """
    multiprocessing.set_forkserver_preload(["torch._dynamo", "torch.nn.parallel"])
    mp.start_processes(function, args, nprocs=world, start_method="forkserver")


def meeting_file(folder: Path) -> str:
    """Return where the processes of a group find each other: a file of their own, since others may take a free port."""
    return (folder / "meeting").as_uri()
