"""What the scripts of these experiments do: take the preset of a data set and a method, and train as the others do."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from dcgan.options import Reader
from dcgan.script import train

from smmd.experiment import ARBEL
from smmd.presets import METHODS, preset


def main(dataset: str, description: str, arguments: Sequence[str] | None = None) -> Path:
    """Train on a data set as the command line says, and return the folder of the run; exits are those of `train`."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument(
        "--method", choices=tuple(METHODS), default="sn-smmd", help="whose settings the others start from (%(default)s)"
    )
    method = first.parse_known_args(arguments)[0].method
    out = Path(f"runs/smmd-{dataset}-{method}")
    return train(Reader(description, preset(dataset, method), out, experiment=ARBEL, parents=[first]), ARBEL, arguments)
