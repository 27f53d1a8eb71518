"""The check in a browser finds what a reader would see as broken. It needs Chromium and the extra `browser`."""

import shutil

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


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.mark.parametrize(("html", "faults"), FAULTS.items(), ids=lambda value: str(value)[:20])
def test_a_fault_is_found(html, faults, browser, tmp_path):
    page = tmp_path / "index.html"
    page.write_text(SOUND + html, encoding="utf-8")
    found = list(look(browser, tmp_path, [page]))
    for fault in faults:
        assert [line for line in found if line.startswith("1400 light: ") and fault in line], found


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
