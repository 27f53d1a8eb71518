"""The numbers of the papers' authors, from `data/authors-numbers.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_PATH = Path(__file__).parent / "data" / "authors-numbers.json"
CASES: dict[str, dict[str, Any]] = {case["id"]: case for case in json.loads(_PATH.read_text())["cases"]}


def ids(prefix: str) -> list[str]:
    """Return the names of all cases that start with `prefix`; there is at least one."""
    names = [name for name in CASES if name.startswith(prefix)]
    if not names:
        raise LookupError(f"no authors' numbers under {prefix!r}")
    return names


def tensor(values: Any) -> Tensor:
    """Return numbers of the file as a float64 tensor."""
    return torch.tensor(values, dtype=torch.float64)
