"""What the scripts do: read the command line, train, and explain what went wrong."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from dcgan.atomic import NotWrittenError
from dcgan.board import MissingBoardError
from dcgan.checkpoints import CheckpointError
from dcgan.experiment import WANG, Experiment
from dcgan.fields import to_json
from dcgan.locks import InUseError, owned
from dcgan.options import Reader
from dcgan.presets import PRESETS
from dcgan.processes import Group, joined
from dcgan.record import NotFiniteError
from dcgan.sources import MissingDataError
from dcgan.training import ResumeError, Training
from torch_mmd_losses import UsageWarning

_REFUSALS = (CheckpointError, InUseError, MissingBoardError, MissingDataError, OSError, ResumeError, ValueError)
"""Errors before the first iteration whose messages say all."""


def main(preset: str, description: str, arguments: Sequence[str] | None = None) -> Path:
    """Train as a preset and the command line say, and return the folder of the run; exits are those of `train`."""
    return train(Reader(description, PRESETS[preset], Path(f"runs/dcgan-{preset}")), WANG, arguments)


def train(reader: Reader, experiment: Experiment[Any, Any, Any], arguments: Sequence[str] | None) -> Path:
    """Train as the command line says, and return the folder of the run.

    Exits with a message, and status 2 if that cannot be done or 1 if the training breaks down; after Ctrl-C or a
    termination, with the status that shells give to them.
    """
    # The number of scores is an option of the command line, and the log has the share of saturated pairs.
    warnings.filterwarnings("ignore", "MMDLoss: expected (several scores|kernel values)", UsageWarning)
    configuration, run = reader.read(arguments)
    with joined(configuration.device or "cpu") as group, ExitStack() as stack:
        say = print if group.first else _say_nothing
        if run.dry_run:
            say(to_json(configuration))
            return run.out
        try:
            group.all_do(lambda: _check_device(configuration.device, group))
            group.all_do(lambda: stack.enter_context(owned(run.out)) if group.first else None)
            training = Training(
                configuration,
                run.out,
                resume=run.resume,
                force=run.force,
                quiet=run.quiet,
                group=group,
                experiment=experiment,
            )
        except _REFUSALS as error:
            if group.first:
                reader.refuse(str(error))
            sys.exit(2)
        try:
            signal = training.run()
        except NotFiniteError as error:
            sys.exit(str(error) if group.first else 1)
        except NotWrittenError as error:
            if group.count > 1:
                raise  # without waiting for the others, which the launcher ends
            sys.exit(f"{error}. Make room, then continue with the same options and --resume auto")
        if signal is not None:
            iteration = training.gan.iteration
            say(f"Interrupted after iteration {iteration:,}; continue with the same options and --resume auto")
            sys.exit(128 + signal)
        say(f"Configuration, log, samples and checkpoints: {run.out}")
        return run.out


def _check_device(device: str, group: Group) -> None:
    try:
        if torch.empty(1, device=group.device(device)).is_meta:
            raise ValueError("device: expected one that computes, such as cpu or cuda; got meta")
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"device: {str(error).splitlines()[0]}") from error


def _say_nothing(message: str) -> None:
    """Leave it to the first process."""
