"""Draw the singular values of the critic's layers in the course of a run of the smmd scripts (Fig. 2b and 7)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from dcgan.atomic import replacing
from dcgan.reading import DamagedFileError
from dcgan.record import read_log
from smmd.record import SPECTRA
from smmd.spectra import draw


def main(arguments: Sequence[str] | None = None) -> Path:
    """Do what the command line says, and return the path of the picture."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--out", type=Path, help=f"the picture ({SPECTRA}.png in the folder)")
    options = parser.parse_args(arguments)
    out: Path = options.out or options.run / f"{SPECTRA}.png"
    try:
        lines = read_log(options.run / f"{SPECTRA}.jsonl")
    except DamagedFileError as error:
        parser.error(str(error))
    if not lines:
        parser.error(f"run: there are no singular values in {options.run}")
    with replacing(out) as partial:
        draw(lines, SPECTRA).savefig(partial, format="png")
    print(f"Picture: {out}")
    return out


if __name__ == "__main__":
    main()
