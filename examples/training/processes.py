"""The processes of a training: their start, agreement and averages between them, and their end with an exit status."""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn, TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor

from training import need
from training.errors import InterruptedBySignalError, RefusedError, StoppedError
from training.settings import S, Settings, saved

T = TypeVar("T")


def launch(train: Callable[[Fabric, S], None], settings: S) -> Path:
    """Train with the processes, device and precision of the settings, and return the folder of the run.

    On failure, exits with a message and a status: 2 if the training is refused, 1 if it breaks down, or 128 plus the
    number of a signal.
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
        # An OSError may concern one process only. All others are raised in all processes, and printed once.
        if fabric is None or fabric.is_global_zero or isinstance(error, OSError):
            said = str(error)
            if isinstance(error, OSError):
                said = said.rpartition("OSError: ")[2].strip()  # without the traceback of a worker
            print(said, file=sys.stderr)
        _exit(fabric, getattr(error, "status", 1))
    except Exception:
        if fabric is None or fabric.world_size == 1:
            raise
        traceback.print_exc()
        _exit(fabric, 1)
    if not settings.quiet:
        fabric.print(f"Settings, log, samples and checkpoints: {settings.out}")
    if fabric.world_size > 1:
        fabric.barrier()  # if one process left early, the others would fail
        gc.collect()  # destroys DDP now: later, its destructor could wait for ever, as in _exit
    return settings.out


def everywhere(fabric: Fabric, act: Callable[[], T], kind: type[Exception] = RefusedError) -> T:
    """Call a function in all processes and return its result.

    If it raises an error of this kind or an OSError in one process, all processes raise it, as an error of this kind.
    """
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
    """Call a function in the first process; all processes return its result or raise its error, as in `everywhere`."""
    return fabric.broadcast(everywhere(fabric, act if fabric.is_global_zero else lambda: None, kind))  # type: ignore[return-value]


def averaged(fabric: Fabric, tensors: Iterable[Tensor]) -> None:
    """Replace floating-point tensors by their means over the processes, in place, in one communication."""
    chosen = [tensor for tensor in tensors if tensor.is_floating_point()]
    if fabric.world_size > 1 and chosen:
        joint = torch.cat([tensor.flatten() for tensor in chosen])
        fabric.all_reduce(joint)
        for tensor, mean in zip(chosen, joint.split([tensor.numel() for tensor in chosen]), strict=True):
            tensor.copy_(mean.view_as(tensor))


def _exit(fabric: Fabric | None, status: int) -> NoReturn:
    if fabric is not None and fabric.world_size > 1:
        # sys.exit can wait for ever: DDP's destructor holds Python's global lock while it waits for a thread of gloo,
        # which waits for that lock.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    # The frames of the error refer to the workers that read images. They ignore signals, so Python would wait for them
    # for ever.
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
