"""Processes of a group that computes together."""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.multiprocessing as mp


def start(function: Callable[..., None], world: int, *args: Any) -> None:
    """Call `function(rank, *args)` in as many new processes as `world`, and wait for them.

    They are forked from a process that has imported torch, which takes each of them seconds otherwise.
    """
    multiprocessing.set_forkserver_preload(["torch._dynamo", "torch.nn.parallel", "torch.distributed.fsdp"])
    mp.start_processes(function, args, nprocs=world, start_method="forkserver")


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
