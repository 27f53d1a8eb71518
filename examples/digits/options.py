"""What a user of the demo may choose on the command line."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from digits.data import COUNT


@dataclass(frozen=True)
class Options:
    """What a user may choose."""

    iterations: int
    batch_size: int
    lr_discriminator: float
    lr_generator: float
    scale: float
    seed: int
    device: str
    threads: int
    out: Path | None
    overwrite: bool
    quiet: bool


def parser(description: str) -> argparse.ArgumentParser:
    """Return the reader of the command line."""
    reader = argparse.ArgumentParser(description=description.splitlines()[0])
    add = reader.add_argument
    add("--iterations", type=_integer(1), default=1500, help="updates of both networks (%(default)s)")
    add("--batch-size", type=_integer(2, COUNT), default=64, help="real, and also fake, images in one (%(default)s)")
    add("--lr-discriminator", type=_positive, default=2e-4, help="its learning rate (%(default)s)")
    add("--lr-generator", type=_positive, default=1e-3, help="its learning rate (%(default)s)")
    add("--scale", type=_positive, default=64 ** (1 / 8), help="norm of each discriminator layer (%(default).3f)")
    add("--seed", type=_integer(0, 2**32 - 1), default=0, help="decides all that is random (%(default)s)")
    add("--device", type=_device, default="cpu", help="where to train (%(default)s)")
    add("--threads", type=_integer(1), default=1, help="CPU threads; 2 gain only on an idle machine (%(default)s)")
    add("--out", type=Path, help="folder of the run (runs/demo-001, -002, ...)")
    add("--overwrite", action="store_true", help="replace an earlier run in the folder --out")
    add("--quiet", action="store_true", help="print the result only")
    return reader


def _integer(low: int, high: float = math.inf) -> Callable[[str], int]:
    limits = f"from {low} to {high}" if high < math.inf else f">= {low}"

    def integer(text: str) -> int:
        if not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"expected an integer {limits}, got {text}")
        return int(text)

    return integer


def _positive(text: str) -> float:
    if not 0 < float(text) < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number > 0, got {text}")
    return float(text)


def _device(text: str) -> str:
    try:
        torch.empty(1, device=text)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text
