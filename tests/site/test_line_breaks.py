"""Lines in the cells of tables break after punctuation of code, and not within numbers."""

import io

import pytest
from line_breaks import with_line_breaks
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace


def of_code(text):
    before, after = '<td><code><span class="pre">', "</span></code></td>"
    return with_line_breaks(f"{before}{text}{after}").removeprefix(before).removesuffix(after)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("conv_spectral_norm", "conv_<wbr>spectral_<wbr>norm"),
        ("MMDLoss.terms(real=a)", "MMDLoss.<wbr>terms(<wbr>real=<wbr>a)"),
        ("lambda_=-1", "lambda_=<wbr>-1"),
        ("docs/losses.md", "docs/<wbr>losses.<wbr>md"),
        ("--share", "--share"),
        ("0.55", "0.55"),
        ("MMDLoss()", "MMDLoss()"),
        ("a==b", "a==<wbr>b"),
    ],
)
def test_code_breaks_after_punctuation(code, expected):
    assert of_code(code) == expected


@pytest.mark.parametrize("tag", ["td", "th"])
def test_a_number_with_its_deviation_or_its_percent_sign_stays_on_a_line(tag):
    cell = f"<{tag} class='x'><p>66.1 ± 1.7 % of 10 images</p></{tag}>"
    assert with_line_breaks(cell) == f"<{tag} class='x'><p>66.1&#160;±&#160;1.7&#160;% of 10 images</p></{tag}>"


def test_text_and_code_outside_of_tables_stay():
    html = '<p>5 ± 1 <code><span class="pre">conv_spectral_norm</span></code></p><thead></thead>'
    assert with_line_breaks(html) == html


def test_pages_are_built_with_them_and_the_search_finds_whole_names(tmp_path):
    (tmp_path / "conf.py").write_text('extensions = ["myst_parser", "line_breaks"]\n', encoding="utf-8")
    table = "| a |\n|---|\n| `some_long_name` 1 ± 2 |\n"
    (tmp_path / "index.md").write_text(f"# Title\n\n{table}", encoding="utf-8")
    out, warnings = str(tmp_path / "_build"), io.StringIO()
    with docutils_namespace():
        Sphinx(str(tmp_path), str(tmp_path), out, out, "html", status=None, warning=warnings).build()
    assert not warnings.getvalue()
    page = (tmp_path / "_build" / "index.html").read_text(encoding="utf-8")
    assert '<span class="pre">some_<wbr>long_<wbr>name</span></code> 1&#160;±&#160;2' in page
    assert "some_long_nam" in (tmp_path / "_build" / "searchindex.js").read_text(encoding="utf-8")
