"""What the scripts do: read the command line, train, and explain what went wrong."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from dcgan.checkpoints import CheckpointError
from dcgan.configuration import to_json
from dcgan.options import Reader
from dcgan.presets import PRESETS
from dcgan.record import NotFiniteError
from dcgan.sources import MissingDataError
from dcgan.training import ResumeError, Training


def main(preset: str, description: str, arguments: Sequence[str] | None = None) -> Path:
    """Train as a preset and the command line say, and return the folder of the run.

    Exits with a message, and status 2 if that cannot be done or 1 if the training breaks down; after Ctrl-C or a
    termination, with the status that shells give to them.
    """
    reader = Reader(description, PRESETS[preset], Path(f"runs/dcgan-{preset}"))
    configuration, run = reader.read(arguments)
    if run.dry_run:
        print(to_json(configuration))
        return run.out
    try:
        _check_device(configuration.device)
        training = Training(configuration, run.out, resume=run.resume, force=run.force, quiet=run.quiet)
    except (CheckpointError, MissingDataError, ResumeError, ValueError) as error:
        reader.refuse(str(error))
    try:
        signal = training.run()
    except NotFiniteError as error:
        sys.exit(str(error))
    if signal is not None:
        print(
            f"Interrupted after iteration {training.gan.iteration:,}; continue with the same options and --resume auto"
        )
        sys.exit(128 + signal)
    print(f"Configuration, log, samples and checkpoints: {run.out}")
    return run.out


def _check_device(device: str | None) -> None:
    try:
        torch.empty(1, device=device)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"device: {str(error).splitlines()[0]}") from error
