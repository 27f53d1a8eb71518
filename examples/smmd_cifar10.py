"""Train the generators of the scaled-MMD paper on CIFAR-10 at 32 x 32 pixels (Arbel et al. 2018, Section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from smmd import script


def main(arguments: Sequence[str] | None = None) -> Path:
    """Do what the command line says, and return the folder of the run."""
    return script.main("cifar10", __doc__, arguments)


if __name__ == "__main__":
    main()
