"""Modules of users, such as networks for features."""

import sys


def find_modules_here() -> None:
    """Let imports find modules in the current folder, as with `python -m`, after all others."""
    if "" not in sys.path:
        sys.path.append("")
