"""Look at the built pages in Chromium without a network: `python docs/check_in_browser.py docs/_build/html`.

Each page is opened at the widths of a desktop and of a telephone, light and dark, and reported if it asks for an address
that is not a file of the site, has errors, shows a formula that MathJax did not set or a picture that did not load, is
wider than the window, cuts a block of code on the desktop, or makes a reader scroll a table of two columns on a telephone.
`--pictures FOLDER` keeps the pictures.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

DESKTOP, TELEPHONE = 1400, 390
WIDTHS = (DESKTOP, TELEPHONE)
"""Pixels."""
LOAD_MS = 120_000
"""Time for a page to load, in milliseconds: the theory has hundreds of formulas, and a busy machine sets them slowly."""
THEMES = ("light", "dark")

# Chromium, as Debian packages it, must not look for updates, and root needs it without a sandbox.
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# Listings of the package's source, and Sphinx's own pages.
_LEFT_OUT = ("_modules", "_static", "genindex", "search")

# A formula that MathJax could not set is an `mjx-merror`; one that it did not see is still text between its delimiters.
_UNRENDERED = """() => [...document.querySelectorAll("mjx-merror, .math")]
    .filter(e => e.matches("mjx-merror") || !e.querySelector("mjx-container"))
    .map(e => e.textContent.trim().slice(0, 60))"""
# A picture that only one theme shows may begin to load with that theme.
_SETTLED = """() => Promise.all([...document.images].filter(e => e.checkVisibility() && !e.complete && e.loading != "lazy")
    .map(e => new Promise(done => { e.onload = e.onerror = done; })))"""
_NOT_LOADED = """() => [...document.images].filter(e => e.checkVisibility() && !e.naturalWidth).map(e => e.src)"""
# Elements beyond the right edge that no ancestor scrolls.
_TOO_WIDE = """() => document.documentElement.scrollWidth > window.innerWidth
    ? [...document.querySelectorAll("article *")]
        .filter(e => e.getBoundingClientRect().right > window.innerWidth + 1)
        .slice(0, 1).map(e => e.tagName.toLowerCase() + ": " + e.textContent.trim().slice(0, 60))
        .concat(document.documentElement.scrollWidth + " pixels").slice(0, 1)
    : []"""
# A formula has no breaks, and tables of more columns may scroll.
_SCROLLED_TABLE = """() => [...document.querySelectorAll("article table.docutils")]
    .filter(e => Math.max(...[...e.rows].map(row => row.cells.length)) <= 2 && !e.querySelector("mjx-container"))
    .filter(e => e.parentElement.scrollWidth > e.parentElement.clientWidth + 1)
    .map(e => e.textContent.trim().replace(/\\s+/g, " ").slice(0, 60))"""
_CUT_CODE = """() => [...document.querySelectorAll("article pre")]
    .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent.trim().slice(0, 60))"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the machine's Chromium.

    Raises:
        FileNotFoundError: There is none.
    """
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise FileNotFoundError("chromium: expected the program on the path (Debian's package chromium), found none")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def faults_in(page: Page, path: Path, width: int) -> list[str]:
    """Return the faults of a page that is shown."""
    checks = {
        "unrendered formula": _UNRENDERED,
        "picture not loaded": _NOT_LOADED,
        "wider than the window": _TOO_WIDE,
    }
    if width == DESKTOP:
        checks["cut code"] = _CUT_CODE
    if width == TELEPHONE:
        checks["scrolled table of two columns"] = _SCROLLED_TABLE
    return [f"{path.name}: {fault}: {found}" for fault, script in checks.items() for found in page.evaluate(script)]


def failure(request: Request) -> Iterator[str]:
    """Yield the fault of a request that failed. The next page ends those that are still waiting, such as for the icon."""
    if request.failure != "net::ERR_ABORTED":
        yield f"cannot load {request.url}"


def look(browser: Browser, root: Path, paths: list[Path], pictures: Path | None = None) -> Iterator[str]:
    """Yield the faults of pages at all widths and in both themes.

    Args:
        browser: A browser of `chromium`.
        root: The folder of the built site.
        paths: The pages, within `root`.
        pictures: Where to keep a picture of each view, or `None`.
    """
    for width in WIDTHS:
        context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
        page, seen = context.new_page(), list[str]()
        page.on("requestfailed", lambda request, seen=seen: seen.extend(failure(request)))
        page.on("pageerror", lambda error, seen=seen: seen.append(f"error: {error}"))
        for path in paths:
            page.emulate_media(color_scheme=THEMES[0])
            page.goto(path.resolve().as_uri(), wait_until="load", timeout=LOAD_MS)
            if page.locator(".math").count():
                page.evaluate("() => MathJax.startup.promise")
            name = path.relative_to(root).with_suffix("").as_posix().replace("/", "-")
            for theme in THEMES:
                page.emulate_media(color_scheme=theme)
                page.evaluate(_SETTLED)
                view = f"{width} {theme}"
                yield from (f"{view}: {path.name}: {fault}" for fault in seen)
                yield from (f"{view}: {fault}" for fault in faults_in(page, path, width))
                seen.clear()
                if pictures is not None:
                    page.screenshot(path=pictures / f"{name}-{width}-{theme}.png", full_page=True)
        context.close()


def pages_of(root: Path) -> list[Path]:
    """Return the pages that are written for readers."""
    found = [path for path in sorted(root.rglob("*.html")) if not path.relative_to(root).parts[0].startswith(_LEFT_OUT)]
    if not found:
        raise FileNotFoundError(f"{root}: expected built pages, found none")
    return found


def main() -> int:
    """Print the faults and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root", type=Path, help="the built site")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="PAGE",
        help="pages to look at, such as gan.html",
    )
    parser.add_argument("--pictures", type=Path, help="keep a picture of each view here")
    options = parser.parse_args()
    paths = [options.root / name for name in options.only] if options.only else pages_of(options.root)
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        found = list(look(browser, options.root, paths, options.pictures))
    print("\n".join([*found, f"{len(found)} faults in {len(paths)} pages of {options.root}"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
