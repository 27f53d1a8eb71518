"""The README as the package index shows it: short, without TeX, with absolute addresses for its relative links."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ADDRESS = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page):
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture(scope="module")
def project():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads pyproject.toml")
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def on_the_index(project):
    text = README
    for rule in project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    return text


@pytest.mark.repository
def test_all_addresses_are_those_of_the_project(project, on_the_index):
    urls = project["project"]["urls"]
    pictures = urls["Repository"].replace("github.com", "raw.githubusercontent.com") + "/main/"
    bases = {pictures: "", urls["Repository"] + "/blob/main/": "", urls["Documentation"] + "/en/latest/": "docs/"}
    addresses = ADDRESS.findall(on_the_index)
    assert len(addresses) == len(ADDRESS.findall(README)) > 10
    for address in addresses:
        [base] = [base for base in bases if address.startswith(base)]
        path, _, heading = (bases[base] + address.removeprefix(base)).partition("#")
        source = ROOT / path.replace(".html", ".md")
        assert source.is_file(), address
        assert not heading or heading in anchors(source), address


def test_pictures_are_files_and_not_pages(project, on_the_index):
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", on_the_index)
    assert pictures
    assert all(re.fullmatch(r"https://raw\.githubusercontent\.com/\S+\.png", picture) for picture in pictures)


def test_it_is_short():
    assert README.count("\n") <= 150


def test_it_has_no_tex():
    """The package index shows it as it is written."""
    prose = re.sub(r"^```.*?^```$|`[^`\n]*`", "", README, flags=re.DOTALL | re.MULTILINE)
    assert not re.findall(r"\$|\\[a-zA-Z]+", prose)
