"""The start of a training in the processes that its settings ask for, and its end with a message and an exit status."""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import torch
from lightning_fabric import Fabric

from training import need
from training.errors import InterruptedBySignalError, RefusedError, StoppedError
from training.settings import S, Settings, saved

T = TypeVar("T")


def launch(train: Callable[[Fabric, S], None], settings: S) -> Path:
    """Train in the processes that the settings ask for, and return the folder of the run.

    Exits with a message and a status: 2 if the training is refused, 1 if it breaks down, 128 and a signal's number.
    """
    if settings.dry_run:
        print(json.dumps({"out": str(settings.out), **saved(settings)}, indent=2))
        return settings.out
    if settings.tensorboard:
        need("tensorboard")
    if settings.quiet:
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric: Fabric | None = None
    try:
        fabric = _fabric(settings)
        fabric.launch()
        train(fabric, settings)
    except (RefusedError, StoppedError, InterruptedBySignalError, OSError) as error:
        # What a single process meets with is an OSError; all others are raised in all processes.
        if fabric is None or fabric.is_global_zero or isinstance(error, OSError):
            print(error, file=sys.stderr)
        _exit(fabric, getattr(error, "status", 1))
    except Exception:
        if fabric is None or fabric.world_size == 1:
            raise
        traceback.print_exc()
        _exit(fabric, 1)
    if not settings.quiet:
        fabric.print(f"Settings, log, samples and checkpoints: {settings.out}")
    if fabric.world_size > 1:
        fabric.barrier()  # the others would fail without a process that has left
        gc.collect()  # of DDP, whose destructor could wait for ever later, as below
    return settings.out


def everywhere(fabric: Fabric, act: Callable[[], T], kind: type[Exception] = RefusedError) -> T:
    """Act in all processes; return the result, or raise in all the error of a kind, or an OSError, of one of them."""
    message = None
    try:
        result = act()
    except (kind, OSError) as error:
        message = str(error)
    for rank in range(fabric.world_size):
        found = fabric.broadcast(message, src=rank)
        if found is not None:
            raise kind(found)
    return result


def agreed(fabric: Fabric, act: Callable[[], T], kind: type[Exception] = RefusedError) -> T:
    """Act in the first process; return in all what it returned, or raise what it refused."""
    return fabric.broadcast(everywhere(fabric, act if fabric.is_global_zero else lambda: None, kind))  # type: ignore[return-value]


def _exit(fabric: Fabric | None, status: int) -> NoReturn:
    if fabric is not None and fabric.world_size > 1:
        # The usual end can wait for ever: DDP's destructor holds Python's lock while it waits for a thread of gloo,
        # which waits for the lock.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    # The frames of the error hold the workers that read images. These ignore signals, so Python would wait for ever.
    traceback.clear_frames(sys.exc_info()[2])
    sys.exit(status)


def _fabric(settings: Settings) -> Fabric:
    def of_environment(*names: str) -> int:
        return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdecimal()), 1)

    devices = settings.devices or of_environment("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE")
    nodes = settings.nodes or of_environment("GROUP_WORLD_SIZE", "SLURM_NNODES")
    try:
        return Fabric(
            accelerator=settings.device or ("cuda" if torch.cuda.is_available() else "cpu"),
            devices=devices,
            num_nodes=nodes,
            strategy="ddp" if devices * nodes > 1 else "auto",
            precision=getattr(settings, "precision", "32-true"),
        )
    except (RuntimeError, ValueError) as error:
        raise RefusedError(f"device: {error}") from error
