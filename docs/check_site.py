"""Check the built pages for what a reader would see as broken: `python docs/check_site.py docs/_build/html`.

It reads the HTML without a browser and reports formulas outside of math elements, missing pictures, broken links within
the site, scripts, styles, fonts or pictures from other hosts, and lines of code that do not fit the column.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

WIDEST_CODE = 84
"""Characters in a line of code that fit the column at a width of 1400 pixels."""

# The listings of the package's source, and what Sphinx shows of its own.
_NOT_CHECKED_FOR_CODE = ("_modules/",)

_TEX = re.compile(r"\$[^$\s][^$\n]*\\[a-zA-Z]+[^$\n]*\$|\\(?:frac|mathrm|mathbb|mathcal|lVert|sum_|sigma|lambda|begin\{)")
_LOADED = {"script": "src", "img": "src", "source": "src", "iframe": "src", "video": "src"}
_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
_URL_IN_STYLE = re.compile(r"url\(\s*['\"]?(?!data:)([^'\")]+)")


class Page(NamedTuple):
    """What the checks need of one page."""

    loaded: list[str]
    """Addresses that a browser fetches to show the page."""
    links: list[str]
    anchors: set[str]
    text: list[str]
    """Text outside of code and math elements."""
    code: list[str]
    """The contents of blocks of code."""


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page([], [], set(), [], [])
        self.open: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.page.anchors.update(values[name] for name in ("id", "name") if name in values)
        if tag in _LOADED and values.get(_LOADED[tag]):
            self.page.loaded.append(values[_LOADED[tag]])
        if tag == "link" and values.get("rel") in {"stylesheet", "icon", "shortcut icon", "preload"}:
            self.page.loaded.append(values["href"])
        if tag == "a" and values.get("href"):
            self.page.links.append(values["href"])
        if tag == "pre":
            self.page.code.append("")
        if tag not in _VOID:
            self.open.append((tag, values.get("class", "")))

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        tags = {tag for tag, _ in self.open}
        if "pre" in tags:
            self.page.code[-1] += data
        elif not tags & {"code", "script", "style"} and not any("math" in c.split() for _, c in self.open):
            self.page.text.append(data)


def read(html: str) -> Page:
    """Return what the checks need of the HTML of a page."""
    reader = _Reader()
    reader.feed(html)
    return reader.page


def faults_of_page(name: str, page: Page) -> list[str]:
    """Return the faults of a page that do not depend on other files."""
    found = [f"{name}: unrendered formula: {text.strip()[:80]!r}" for text in page.text if _TEX.search(text)]
    found += [f"{name}: from another host: {address}" for address in page.loaded if _is_external(address)]
    if not name.startswith(_NOT_CHECKED_FOR_CODE):
        lines = [line.rstrip() for code in page.code for line in code.splitlines()]
        wide = [line for line in lines if len(line) > WIDEST_CODE]
        found += [f"{name}: a line of code with {len(line)} characters: {line[:60]!r}" for line in wide]
    return found


def faults_of_links(name: str, page: Page, pages: dict[str, Page], root: Path) -> list[str]:
    """Return links and pictures of a page that lead to nothing within the site."""
    found = []
    for address in [*page.links, *page.loaded]:
        parts = urlsplit(address)
        if parts.scheme or parts.netloc:
            continue
        target = (root / name).parent / unquote(parts.path) if parts.path else root / name
        if not target.exists():
            found.append(f"{name}: missing: {address}")
            continue
        other = target.resolve().relative_to(root.resolve()).as_posix()
        if parts.fragment and other in pages and unquote(parts.fragment) not in pages[other].anchors:
            found.append(f"{name}: no such place: {address}")
    return found


def faults_of_style(name: str, style: str) -> list[str]:
    """Return what a style sheet loads from other hosts."""
    return [f"{name}: from another host: {url}" for url in _URL_IN_STYLE.findall(style) if _is_external(url)]


def _is_external(address: str) -> bool:
    return urlsplit(address).scheme in {"http", "https"} or address.startswith("//")


def check(root: Path) -> list[str]:
    """Return the faults of a built site."""
    names = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.html"))]
    pages = {name: read((root / name).read_text(encoding="utf-8")) for name in names if "_static" not in name}
    found = [] if pages else [f"{root}: expected built pages, got none"]
    for name, page in pages.items():
        found += faults_of_page(name, page) + faults_of_links(name, page, pages, root)
    for path in sorted(root.rglob("*.css")):
        found += faults_of_style(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"))
    return found


def main() -> int:
    """Print the faults and return the exit status."""
    found = check(Path(sys.argv[1]))
    print("\n".join([*found, f"{len(found)} faults in {sys.argv[1]}"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
