"""Where a number comes from: digests of files and networks, versions, the machine, the date and the command."""

from __future__ import annotations

import hashlib
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

import torch_mmd_losses

PACKAGES = ("torch", "torchvision", "torch-fidelity", "torchmetrics", "numpy", "scikit-learn")


def digest_of_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def digest_of_network(network: nn.Module) -> str:
    """Return the SHA-256 of the names, shapes, types and values in a network's state, in order of the names."""
    found = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def circumstances(script: str, arguments: Sequence[str] | None) -> dict[str, Any]:
    """Return under which circumstances a script runs: versions, machine, date and command."""
    words = sys.argv[1:] if arguments is None else arguments
    return {
        "versions": versions(),
        "machine": {
            "platform": platform.platform(),
            "processor": processor(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(["python", script, *words]),
    }


def versions() -> dict[str, str | None]:
    """Return the version of each package that takes part, or None if it is not installed."""
    return {
        "python": platform.python_version(),
        "torch-mmd-losses": torch_mmd_losses.__version__,
        **{package: _version(package) for package in PACKAGES},
    }


def processor() -> str:
    """Return what the processor is called."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # only Linux has this file
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
