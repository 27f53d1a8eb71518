"""Each check of the built pages finds the fault that it is for, and nothing in a sound page."""

import pytest
from check_site import check, faults_of_style

SOUND = """<html><head><link rel="stylesheet" href="site.css"></head><body id="top">
<p>A price of $5 and <span class="math notranslate">\\(\\lVert a\\rVert\\)</span>, <code>\\frac</code></p>
<img src="picture.svg"><a href="#top">up</a><a href="https://example.org">out</a><a href="other.html#there">on</a>
<pre>short</pre></body></html>"""


@pytest.fixture
def found_in(tmp_path):
    def faults(html):
        (tmp_path / "index.html").write_text(html, encoding="utf-8")
        (tmp_path / "other.html").write_text('<p id="there">text</p>', encoding="utf-8")
        (tmp_path / "picture.svg").write_text("<svg/>", encoding="utf-8")
        (tmp_path / "site.css").write_text("p {}", encoding="utf-8")
        return check(tmp_path)

    return faults


def test_a_sound_site_has_no_faults(found_in):
    assert found_in(SOUND) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("A price", "A norm $\\lVert a\\rVert$", "unrendered formula"),
        ("A price", "A fraction \\frac{1}{2}", "unrendered formula"),
        ("picture.svg", "gone.svg", "missing: gone.svg"),
        ("other.html#there", "gone.html", "missing: gone.html"),
        ("#there", "#nowhere", "no such place: other.html#nowhere"),
        ("#top", "#nowhere", "no such place: #nowhere"),
        ("picture.svg", "https://example.org/picture.svg", "from another host"),
        ("site.css", "//example.org/site.css", "from another host"),
        ("short", "x" * 85, "85 characters"),
    ],
)
def test_a_fault_is_found(found_in, old, new, fault):
    (found,) = found_in(SOUND.replace(old, new))
    assert fault in found


def test_fonts_from_other_hosts_are_found():
    assert faults_of_style("a.css", "src: url('https://example.org/a.woff'), url(b.woff), url(data:x)") == [
        "a.css: from another host: https://example.org/a.woff"
    ]


def test_an_empty_folder_is_a_fault(tmp_path):
    assert check(tmp_path) == [f"{tmp_path}: expected built pages, got none"]


def test_the_source_listings_may_have_long_lines(tmp_path):
    (tmp_path / "_modules").mkdir()
    (tmp_path / "_modules" / "a.html").write_text(f"<pre>{'x' * 120}</pre>", encoding="utf-8")
    assert check(tmp_path) == []
