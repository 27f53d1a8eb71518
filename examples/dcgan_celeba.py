"""Train the repulsive-loss paper's DCGAN on CelebA at 64 x 64 pixels (Wang et al. 2019, Section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dcgan import script


def main(arguments: Sequence[str] | None = None) -> Path:
    """Do what the command line says, and return the folder of the run."""
    return script.main("celeba", __doc__, arguments)


if __name__ == "__main__":
    main()
