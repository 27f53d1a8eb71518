"""The provenance of a number: digests of files and networks, versions, machine, date and command."""

from __future__ import annotations

import hashlib
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch
from torch import nn

PACKAGES = ("numpy", "scikit-learn", "torch", "torch-fidelity", "torch-mmd-losses", "torchmetrics", "torchvision")


def digest_of_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digest_of_network(network: nn.Module) -> str:
    """Return the SHA-256 of names, shapes, types and values in a network's state, in the order of the names."""
    found = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def circumstances(script: str, words: Sequence[str] | None = None) -> dict[str, Any]:
    """Return versions, machine, date and command of a script.

    The `script` is a path in the repository. The `words` are its arguments if other code calls it; None stands for the
    command line of this process.
    """
    line = sys.argv if words is None else [script, *words]
    installed = {each.name.replace("_", "-"): each.version for each in distributions()}
    info = Path("/proc/cpuinfo")  # which only Linux has
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")] or [platform.processor()]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    machine = {"platform": platform.platform(), "processor": models[0], "threads": torch.get_num_threads(), "gpu": gpu}
    return {
        "versions": {"python": platform.python_version(), **{name: installed.get(name) for name in PACKAGES}},
        "machine": machine,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(["python", *line]),
    }
