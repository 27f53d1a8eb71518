"""Train the generators of the scaled-MMD paper on ImageNet at 64 x 64 pixels (Arbel et al. 2018, Section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from smmd import script


def main(arguments: Sequence[str] | None = None) -> Path:
    """Do what the command line says, and return the folder of the run."""
    return script.main("imagenet", __doc__, arguments)


if __name__ == "__main__":
    main()
