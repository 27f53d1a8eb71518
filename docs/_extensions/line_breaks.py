"""Where lines of the cells of tables may break: code after punctuation, and never within a number such as 5.7 ± 0.4."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_CELL = re.compile(r"<t[dh]\b.*?</t[dh]>", re.DOTALL)
_CODE = re.compile(r'(?<=<span class="pre">)[^<]+')
_UNBROKEN = re.compile(r"(?<=\d) (?=±)|(?<=±) (?=\d)|(?<=\d) (?=%)")
# After an underscore or a dot within a name, and after = / ( [ and a comma.
_BREAKS = re.compile(
    r"(?<=[A-Za-z0-9]_)(?=[A-Za-z0-9])|(?<=[A-Za-z_)]\.)(?=[A-Za-z_])|(?<=[=/(\[,])(?=[^\s=/(\[,)\]])"
)


def with_line_breaks(html: str) -> str:
    """Return the HTML of a page with other places for line breaks in its tables.

    The style sheet decides on which screens code breaks: a `wbr` that is not displayed is not a place to break.
    """

    def of_cell(cell: re.Match[str]) -> str:
        code = _CODE.sub(lambda text: _BREAKS.sub("<wbr>", text[0]), cell[0])
        return _UNBROKEN.sub("&#160;", code)

    return _CELL.sub(of_cell, html)


def break_lines(app: Sphinx, name: str, template: str, context: dict[str, Any], document: object) -> None:
    """Change the body of a page. The search index is made from the text before."""
    if "body" in context:
        context["body"] = with_line_breaks(context["body"])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the change."""
    app.connect("html-page-context", break_lines)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
