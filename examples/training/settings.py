"""The settings of a training: typed dataclasses that tyro reads from the command line, with presets as subcommands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import tyro

from training.images import FORMATS

S = TypeVar("S", bound="Settings")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every training has. None stands for what goes with the other settings."""

    out: Path  # folder of the run
    resume: str | None = None
    """auto: continue from the newest checkpoint in the folder, if there is one; or the path of a checkpoint"""
    force: bool = False  # continue although the settings have changed
    quiet: bool = False  # print warnings only
    dry_run: bool = False  # print the settings and do nothing
    data_root: Path = Path("data")  # folder of the data sets
    dataset: str  # images to learn from
    size: int = 32  # height and width of the images
    channels: Literal[1, 3] = 3  # 3 for colours, 1 for grey
    iterations: int = 100_000  # updates of the generator
    ema_decay: float = 0.999  # of the moving average of the generator, which draws the samples
    seed: int = 0  # decides all that is random
    device: Literal["cpu", "cuda"] | None = None  # where to train; by default a GPU if there is one
    devices: int | None = None
    """processes on this machine, each with its own GPU; by default those of torchrun or Slurm, else one"""
    nodes: int | None = None  # machines; by default those of torchrun or Slurm, else one
    workers: int = 0  # processes that read images ahead
    tensorboard: bool = False  # write the log and the samples for TensorBoard too
    log_every: int = 100  # iterations from one line of the log to the next
    sample_every: int = 5000  # iterations from one sheet of samples to the next
    checkpoint_every: int = 1000  # iterations from one checkpoint to the next
    keep_every: int | None = None
    """iterations from one checkpoint that stays to the next; by default the newest two stay"""

    # What a command does, which is not saved; and what may differ when a run goes on: how long it is, where and how the
    # same is computed, and what is written.
    OF_COMMAND: ClassVar[frozenset[str]] = frozenset({"out", "resume", "force", "quiet", "dry_run"})
    FREE: ClassVar[frozenset[str]] = frozenset(
        {"data_root", "iterations", "device", "devices", "nodes", "workers", "tensorboard"}
        | {"log_every", "sample_every", "checkpoint_every", "keep_every", "channels_last", "compile"}
    )
    FORMATS: ClassVar[Mapping[str, tuple[int, int]]] = FORMATS

    def __post_init__(self) -> None:
        check(self, "iterations", "log_every", "sample_every", "checkpoint_every", least=1)
        check(self, "keep_every", "devices", "nodes", least=1)
        check(self, "workers", least=0)
        check(self, "seed", least=0, below=2**32)
        check(self, "ema_decay", least=0, below=1)
        size, channels = self.FORMATS.get(self.dataset, (self.size, self.channels))
        if (size, channels) != (self.size, self.channels):
            chosen = f"but size and channels are {self.size} and {self.channels}"
            raise ValueError(f"dataset: {self.dataset} has images of size {size} with {channels} channels, {chosen}")


def check(
    settings: object, *names: str, least: float = -math.inf, above: float = -math.inf, below: float = math.inf
) -> None:
    """Raise `ValueError` if a setting is out of range or not finite; None is never."""
    limits = {">=": least, ">": above, "<": below}
    expected = " and ".join(f"{sign} {limit}" for sign, limit in limits.items() if math.isfinite(limit))
    for name in names:
        value = getattr(settings, name)
        if value is not None and not (math.isfinite(value) and least <= value and above < value < below):
            raise ValueError(f"{name}: expected a number {expected or 'that is finite'}, got {value}")


def read(presets: Mapping[str, S], description: str, arguments: Sequence[str] | None) -> S:
    """Return the settings that a command line asks for.

    Exits with status 2 and a message if they cannot be used.

    Args:
        presets: the settings that options change, by name.
        description: the first lines of the help.
        arguments: name of a preset and options. A script of one preset passes them, so that its users do not type the
            name. None reads both from the command line of the process.
    """
    if arguments is not None:
        default = presets[arguments[0]]
        return tyro.cli(type(default), description=description, default=default, args=arguments[1:])
    described = {
        name: (f"images of {each.dataset}, {each.size} x {each.size} pixels, {each.iterations:,} iterations", each)
        for name, each in presets.items()
    }
    return tyro.extras.overridable_config_cli(described, description=description)


def saved(settings: Settings) -> dict[str, Any]:
    """Return the settings as they are saved: numbers, strings and None by name."""
    found = {name: value for name, value in vars(settings).items() if name not in settings.OF_COMMAND}
    return {name: str(value) if isinstance(value, Path) else value for name, value in found.items()}


def changes(before: Mapping[str, Any], settings: Settings) -> list[str]:
    """Describe the differences from saved settings that a resumed run may not have."""
    after = saved(settings)
    return [
        f"{name} was {before.get(name)!r} and is {after.get(name)!r}"
        for name in sorted(before.keys() | after.keys())
        if name not in settings.FREE and before.get(name) != after.get(name)
    ]
