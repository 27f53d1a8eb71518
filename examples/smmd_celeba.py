"""Train the generators of the scaled-MMD paper on CelebA at 160 x 160 pixels (Arbel et al. 2018, Section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from smmd import script


def main(arguments: Sequence[str] | None = None) -> Path:
    """Do what the command line says, and return the folder of the run."""
    return script.main("celeba", __doc__, arguments)


if __name__ == "__main__":
    main()
