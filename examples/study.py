"""Run the study on Fashion-MNIST, keep its raw logs, and report what they say."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from studies import command


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says, and return the exit status."""
    return command.main(__doc__, sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())
