"""Edit links of pages that are generated: they lead to the source of the object or of the example."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch_mmd_losses
from torch_mmd_losses import results, types

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]


def source_of(page: str) -> str | None:
    """Return the file that a generated page is made of, relative to the repository; None for other pages.

    Args:
        page: name of the page without suffix, such as `api/torch_mmd_losses.mmd2`.
    """
    folder, _, name = page.rpartition("/")
    if folder == "auto_gallery":
        return f"docs/gallery/{'README.rst' if name == 'index' else f'{name}.py'}"
    if folder != "api":
        return None
    module = next(m for m in (results, types, torch_mmd_losses) if name.startswith(f"{m.__name__}."))
    described = getattr(module, name.rpartition(".")[2])
    module_of = inspect.getmodule(described) if callable(described) and module is torch_mmd_losses else module
    return f"torch_mmd_losses/{Path(inspect.getfile(module_of or module)).relative_to(_package()).as_posix()}"


def _package() -> Path:
    return Path(inspect.getfile(torch_mmd_losses)).parent


def set_edit_link(app: Sphinx, page: str, template: str, context: dict[str, Any], document: object) -> None:
    """Replace the addresses that the theme derives from the name of the page."""
    options = app.config.html_theme_options
    source = source_of(page)
    if source is not None:
        kinds = {"theme_source_edit_link": "edit", "theme_source_view_link": "blob"}
        for key, kind in kinds.items():
            context[key] = f"{options['source_repository']}{kind}/{options['source_branch']}/{source}"


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the handler."""
    app.connect("html-page-context", set_edit_link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
