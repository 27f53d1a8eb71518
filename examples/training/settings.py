"""The settings of a training: a typed dataclass that tyro reads from the command line, with presets as subcommands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import tyro

from training.images import FORMATS

S = TypeVar("S", bound="Settings")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of every training. None means that the other settings decide."""

    out: Path  # folder for the files of the run
    resume: Annotated[str | None, tyro.conf.arg(metavar="auto|PATH")] = None
    """checkpoint to resume from; auto takes the newest one in --out, or starts anew if there is none"""
    force: bool = False  # resume even if the settings have changed
    quiet: bool = False  # print only warnings
    dry_run: bool = False  # print the settings and exit
    data_root: Path = Path("data")  # folder of the data sets
    dataset: str  # training images; folder reads all images below --data-root, fake generates images
    size: int = 32  # height and width of the images in pixels
    channels: Literal[1, 3] = 3  # 3 for colour images, 1 for grey ones
    iterations: int = 100_000  # number of updates of the generator
    ema_decay: float = 0.999  # decay of the moving average of the generator, from which samples are drawn
    seed: int = 0  # seed of all random numbers
    device: Literal["cpu", "cuda"] | None = None  # device to train on; by default a GPU if there is one
    devices: int | None = None
    """number of processes on this machine, one per GPU; by default that of torchrun or Slurm, or 1"""
    nodes: int | None = None  # number of machines; by default that of torchrun or Slurm, or 1
    workers: int = 0  # number of processes that read images ahead; 0 reads them in the training process
    tensorboard: bool = False  # also write the log and the samples for TensorBoard
    log_every: int = 100  # iterations between lines of the log
    sample_every: int = 5000  # iterations between sheets of samples
    checkpoint_every: int = 1000  # iterations between checkpoints, of which the newest two are kept
    keep_every: int | None = None  # iterations between checkpoints that are kept for good; by default none are

    # OF_COMMAND is not saved. FREE may change when a run is resumed: the length of the run, the place and the way of
    # the same computation, and the files to write.
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


# Of presets of both papers: ten minutes on one CPU core; and a training that learns nothing, but runs every step.
REDUCED: dict[str, Any] = {"channels": 1, "iterations": 2000, "ema_decay": 0.99, "log_every": 20}
REDUCED |= dict.fromkeys(("sample_every", "checkpoint_every"), 500)
TRIAL: dict[str, Any] = {"batch_size": 4, "iterations": 20, "log_every": 5, "sample_every": 10, "checkpoint_every": 10}


def check(
    settings: object, *names: str, least: float = -math.inf, above: float = -math.inf, below: float = math.inf
) -> None:
    """Raise `ValueError` if one of the named settings is out of range or not finite; None is always accepted."""
    limits = {">=": least, ">": above, "<": below}
    expected = " and ".join(f"{sign} {limit}" for sign, limit in limits.items() if math.isfinite(limit))
    for name in names:
        value = getattr(settings, name)
        if value is not None and not (math.isfinite(value) and least <= value and above < value < below):
            raise ValueError(f"{name}: expected a number {expected or 'that is finite'}, got {value}")


def read(presets: Mapping[str, S], description: str, arguments: Sequence[str] | None) -> S:
    """Return the settings that a command line asks for; exit with status 2 and a message if they cannot be used.

    A script of one preset passes its name and the options, so that its users do not type the name. None reads
    both from the command line of the process.
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
    """Return the settings in the form in which they are saved: numbers, strings and None by name."""
    found = {name: value for name, value in vars(settings).items() if name not in settings.OF_COMMAND}
    return {name: str(value) if isinstance(value, Path) else value for name, value in found.items()}


def changes(before: Mapping[str, Any], settings: Settings) -> list[str]:
    """Describe the differences from saved settings that are not allowed when a run is resumed."""
    after = saved(settings)
    return [
        f"{name} was {before.get(name)!r} and is {after.get(name)!r}"
        for name in sorted(before.keys() | after.keys())
        if name not in settings.FREE and before.get(name) != after.get(name)
    ]
