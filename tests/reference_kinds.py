"""The kinds of references, and which options each of them takes."""

from __future__ import annotations

from typing import Any

KINDS = ("exact", "nystrom", "fourier")
TAKEN_BY = {"landmarks": ("nystrom",), "frequencies": ("fourier",), "self_rows": ("exact", "nystrom")}


def taken_by(kind: str, **options: Any) -> dict[str, Any]:
    """Return the options that a kind takes."""
    return {name: value for name, value in options.items() if kind in TAKEN_BY.get(name, KINDS)}
