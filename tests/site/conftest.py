"""Tests of the site's own extensions. They need the extra `docs` and run by `make docs`."""

import importlib.util
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
sys.path[:0] = [str(DOCS / "_extensions"), str(DOCS)]

if importlib.util.find_spec("sphinx") is None:
    collect_ignore_glob = ["test_*.py"]
