"""The provenance of a number: digests of files and networks, versions, machine, date and command."""

from __future__ import annotations

import hashlib
import platform
import re
import shlex
import sys
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


def circumstances() -> dict[str, Any]:
    """Return versions, machine, date and command of this process."""
    installed = {each.name.replace("_", "-"): each.version for each in distributions()}
    cpuinfo = Path("/proc/cpuinfo")  # which only Linux has
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text(encoding="utf-8")) if cpuinfo.exists() else None
    processor, threads = model[1] if model else platform.processor(), torch.get_num_threads()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "versions": {"python": platform.python_version(), **{name: installed.get(name) for name in PACKAGES}},
        "machine": {"platform": platform.platform(), "processor": processor, "threads": threads, "gpu": gpu},
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(["python", *sys.argv]),
    }
