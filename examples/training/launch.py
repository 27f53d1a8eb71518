"""The start of a training in the processes that its settings ask for, and its end with a message and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers.logger import Logger
from lightning_fabric.loggers.tensorboard import TensorBoardLogger

from training.errors import InterruptedBySignalError, RefusedError, StoppedError
from training.requirements import need
from training.settings import S, Settings, to_json

T = TypeVar("T")


def launch(train: Callable[[Fabric, S], None], settings: S) -> Path:
    """Train in the processes that the settings ask for, and return the folder of the run.

    Exits with a message and a status: 2 if the training is refused, 1 if it breaks down, 128 and a signal's number.
    """
    if settings.dry_run:
        print(to_json(settings))
        return settings.out
    fabric: Fabric | None = None
    try:
        fabric = _fabric(settings)
        fabric.launch()
        train(fabric, settings)
    except (RefusedError, StoppedError, InterruptedBySignalError, OSError) as error:
        if fabric is None or fabric.is_global_zero:
            print(error, file=sys.stderr)
        status = {RefusedError: 2, StoppedError: 1}.get(type(error), 1)
        sys.exit(128 + error.signal if isinstance(error, InterruptedBySignalError) else status)
    fabric.barrier()
    fabric.print(f"Settings, log, samples and checkpoints: {settings.out}")
    return settings.out


def agreed(fabric: Fabric, act: Callable[[], T]) -> T:
    """Let the first process act; return in all what it returned, or raise what it refused."""
    result: Any = None
    if fabric.is_global_zero:
        try:
            result = act()
        except (RefusedError, OSError) as error:
            result = error if isinstance(error, RefusedError) else RefusedError(str(error))
    result = fabric.broadcast(result)
    if isinstance(result, RefusedError):
        raise result
    return result


def _fabric(settings: Settings) -> Fabric:
    devices = settings.devices or _of_environment("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE")
    nodes = settings.nodes or _of_environment("GROUP_WORLD_SIZE", "SLURM_NNODES")
    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    loggers: list[Logger] = []
    if settings.tensorboard:
        need("tensorboard")
        loggers.append(TensorBoardLogger(settings.out, name="tensorboard", version=""))
    try:
        return Fabric(
            accelerator=device,
            devices=devices,
            num_nodes=nodes,
            strategy="ddp" if devices * nodes > 1 else "auto",
            precision=getattr(settings, "precision", "32-true"),
            loggers=loggers,
        )
    except (RuntimeError, ValueError) as error:
        raise RefusedError(f"device: {error}") from error


def _of_environment(*names: str) -> int:
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdecimal()), 1)
