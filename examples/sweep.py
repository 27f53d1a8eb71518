"""Run, list and collect the sweeps of Wang et al. (2019) over losses, lambda, the constant C and the scores."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sweeps import command


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says, and return the exit status."""
    return command.main(__doc__, sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())
