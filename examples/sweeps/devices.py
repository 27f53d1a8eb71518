"""Where a training runs: what its command and its environment have to say for that."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Place:
    """A place for one training at a time."""

    name: str
    """What it is called in messages."""
    options: list[str] = field(default_factory=list)
    """Options of the training script."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables of the training and of the evaluation."""


def place(device: str | None, threads: int | None, environment: Mapping[str, str] = os.environ) -> Place:
    """Return the place of a device.

    Args:
        device: `"cpu"`, `"cuda:0"` or any other of torch's; None leaves the choice to the script.
        threads: how many to compute with on a CPU; by default one for the device `"cpu"`, else not decided here.
        environment: variables at present. If they hide GPUs, as schedulers do, `"cuda:0"` is the first that is visible.

    Raises:
        ValueError: if there is no GPU of the number.
    """
    if threads is None and device == "cpu":
        threads = 1
    variables = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    if device is None:
        return Place("the default device", [], variables)
    if device == "cpu":
        return Place(device, ["--device=cpu"], variables | {"CUDA_VISIBLE_DEVICES": ""})
    kind, _, number = device.partition(":")
    if kind != "cuda" or not number.isdecimal():
        return Place(device, [f"--device={device}"], variables)
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        listed = [name for name in visible.split(",") if name]
        if int(number) >= len(listed):
            raise ValueError(f"devices: {device} is not there, CUDA_VISIBLE_DEVICES is {visible!r}")
        number = listed[int(number)]
    # A process that sees one GPU cannot leave memory on another by accident.
    return Place(device, ["--device=cuda"], variables | {"CUDA_VISIBLE_DEVICES": number})
