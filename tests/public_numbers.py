"""The numbers of public code for one-step generation."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

PATH = Path(__file__).parent / "data" / "modern-mmd.json"


def case(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the inputs and the outputs of a case, in float64."""
    (found,) = (each for each in json.loads(PATH.read_text(encoding="utf-8"))["cases"] if each["id"] == name)
    inputs, outputs = (
        {key: torch.tensor(value, dtype=torch.float64) for key, value in found[part].items()}
        for part in ("inputs", "outputs")
    )
    return inputs, outputs
