"""The check in a browser finds what a reader would see as broken. It needs Chromium and the extra `browser`."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="the extra `browser`")
if shutil.which("chromium") is None:
    pytest.skip("Debian's package chromium", allow_module_level=True)

from check_in_browser import chromium, look, main, pages_of

SOUND = "<article><p>A sound page.</p><pre>short</pre></article>"
FAULTS = {
    "<img src='gone.png'>": ["cannot load", "picture not loaded"],
    "<img src='https://example.org/a.png'>": ["cannot load https://example.org", "picture not loaded"],
    "<script>undefined.name</script>": ["error"],
    "<mjx-merror>x</mjx-merror>": ["unrendered formula: x"],
    "<article><div style='width: 1500px'>wide</div></article>": ["wider than the window: div: wide"],
    f"<article><pre style='overflow: auto'>{'x' * 400}</pre></article>": ["cut code"],
}
# A browser may wait with its picture until it is shown.
ONLY_DARK = "<style>@media (prefers-color-scheme: light) { img { display: none } }</style><img src='gone.png'>"

WIDE = "x" * 200
TABLES = {
    f"<tr><td><code>{WIDE}</code></td><td>right</td></tr>": True,
    f"<tr><td><code>{WIDE}</code></td><td>middle</td><td>right</td></tr>": False,
    "<tr><td><code>short</code></td><td>right</td></tr>": False,
}


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


def table(rows: str) -> str:
    return f"<article><div style='overflow-x: auto'><table class='docutils'>{rows}</table></div></article>"


@pytest.fixture(scope="module")
def found(browser, tmp_path_factory) -> Callable[[str], list[str]]:
    """Return what is said of a page, which is one of a site with all of these faults."""
    folder = tmp_path_factory.mktemp("site")
    ends = [*FAULTS, *map(table, TABLES), ONLY_DARK, ""]
    pages = {html: folder / f"page-{number}.html" for number, html in enumerate(ends)}
    for html, page in pages.items():
        page.write_text(SOUND + html, encoding="utf-8")
    lines = list(look(browser, folder, list(pages.values())))
    return lambda html: [line.replace(f"{pages[html].name}: ", "") for line in lines if pages[html].name in line]


@pytest.mark.parametrize(("html", "faults"), FAULTS.items(), ids=lambda value: str(value)[:20])
def test_a_fault_is_found(html, faults, found):
    for fault in faults:
        assert [line for line in found(html) if line.startswith(f"1400 light: {fault}")], found(html)


def test_a_fault_is_said_of_its_page_only(found):
    assert found("") == []


def test_a_picture_of_one_theme_is_looked_at_in_this_theme(found):
    views = {line.partition(": picture not loaded")[0] for line in found(ONLY_DARK) if "picture not loaded" in line}
    assert views == {"1400 dark", "390 dark"}


@pytest.mark.parametrize(("rows", "is_fault"), TABLES.items(), ids=["two columns", "three columns", "narrow"])
def test_a_table_of_two_columns_that_scrolls_is_found(rows, is_fault, found):
    lines = [line for line in found(table(rows)) if "scrolled table of two columns" in line]
    assert [line.partition(":")[0] for line in lines] == (["390 light", "390 dark"] if is_fault else [])


def test_the_style_of_the_site_breaks_code_in_tables_of_two_columns(browser, tmp_path):
    page, styles = tmp_path / "index.html", Path(__file__).parents[2] / "docs" / "_static" / "site.css"
    # Sphinx has the first rule.
    style = f"<style>span.pre {{ white-space: nowrap; }} {styles.read_text(encoding='utf-8')}</style>"
    code = f"<code><span class='pre'>{WIDE}</span></code>"
    page.write_text(style + SOUND + table(f"<tr><td>{code}</td><td>right</td></tr>"), encoding="utf-8")
    assert not list(look(browser, tmp_path, [page]))


def test_a_page_without_faults(browser, tmp_path):
    page, pictures = tmp_path / "index.html", tmp_path / "pictures"
    page.write_text(SOUND, encoding="utf-8")
    pictures.mkdir()
    assert not list(look(browser, tmp_path, [page], pictures))
    seen = {f"index-{width}-{theme}.png" for width in (1400, 390) for theme in ("light", "dark")}
    assert {path.name for path in pictures.iterdir()} == seen


def test_an_empty_site_and_a_missing_browser(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="expected built pages, found none"):
        pages_of(tmp_path)
    (tmp_path / "index.html").write_text(SOUND, encoding="utf-8")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sys.argv", ["check", str(tmp_path)])
    with pytest.raises(FileNotFoundError, match="chromium: expected the program on the path"):
        main()
