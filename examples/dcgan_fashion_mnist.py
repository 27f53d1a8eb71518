"""Train a reduced DCGAN with the repulsive loss on Fashion-MNIST: minutes on a CPU, and a small download."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dcgan import script


def main(arguments: Sequence[str] | None = None) -> Path:
    """Do what the command line says, and return the folder of the run."""
    return script.main("fashion-mnist", __doc__, arguments)


if __name__ == "__main__":
    main()
