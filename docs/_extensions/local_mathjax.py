"""Formulas without a network: MathJax 3 and its fonts as files of the site."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from sphinx.util.fileutil import copy_asset

if TYPE_CHECKING:
    from sphinx.application import Sphinx

# One program with TeX input and HTML output, its fonts, and what rare TeX commands load when they are first used.
_PARTS = ["tex-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions"]


def mathjax_files() -> Path:
    """Return the folder of MathJax in the package that brings it."""
    package = importlib.util.find_spec("sphinx-mathjax-offline")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("sphinx-mathjax-offline: expected to be installed; pip install -e '.[docs]' does it")
    return Path(package.origin).parent / "static" / "mathjax"


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Copy the parts of MathJax that the pages use; the whole package has 24 MB."""
    if error is None and app.builder.format == "html":
        for part in _PARTS:
            target = app.outdir / "_static" / "mathjax" / part
            copy_asset(mathjax_files() / part, target if (mathjax_files() / part).is_dir() else target.parent)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the copying."""
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
