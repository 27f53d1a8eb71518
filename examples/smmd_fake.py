"""Run through a whole training of the scaled-MMD paper in seconds, on generated images: to try first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from smmd import script


def main(arguments: Sequence[str] | None = None) -> Path:
    """Do what the command line says, and return the folder of the run."""
    return script.main("fake", __doc__, arguments)


if __name__ == "__main__":
    main()
