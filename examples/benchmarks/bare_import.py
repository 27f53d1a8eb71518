"""Imports of single modules of packages whose own requirements are not installed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def bare(name: str) -> ModuleType:
    """Import a module without running its packages' `__init__`, which may need much that MMD does not.

    Afterwards nothing is known of the packages, which another module may need as they are.
    """
    parts, bare_packages = name.split("."), []
    for end in range(1, len(parts)):
        package = ".".join(parts[:end])
        if package in sys.modules:
            continue
        if end == 1:
            spec = importlib.util.find_spec(package)
            if spec is None or not spec.submodule_search_locations:
                raise ModuleNotFoundError(f"No module named {package!r}", name=package)
            folders = list(spec.submodule_search_locations)
        else:
            folders = [
                str(Path(folder) / parts[end - 1]) for folder in sys.modules[package.rpartition(".")[0]].__path__
            ]
        sys.modules[package] = ModuleType(package)
        sys.modules[package].__path__ = folders
        bare_packages.append(package)
    try:
        return importlib.import_module(name)
    finally:
        for package in bare_packages:
            del sys.modules[package]
