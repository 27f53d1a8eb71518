"""Train reduced networks by the methods of the scaled-MMD paper on Fashion-MNIST: minutes on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from smmd import script


def main(arguments: Sequence[str] | None = None) -> Path:
    """Do what the command line says, and return the folder of the run."""
    return script.main("fashion-mnist", __doc__, arguments)


if __name__ == "__main__":
    main()
