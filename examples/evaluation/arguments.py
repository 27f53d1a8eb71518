"""Kinds of values on the command line."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable


def integer(low: int, high: float = math.inf) -> Callable[[str], int]:
    """Return the reader of an integer from `low` to `high`."""
    limits = f"from {low} to {high}" if high < math.inf else f">= {low}"

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"expected an integer {limits}, got {text!r}")
        return value

    return read
