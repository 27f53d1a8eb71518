"""The tables of `docs/constants.md`: each row has a pair of numbers, the other library's formula and ours."""

import re
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

PAGE = Path(__file__).parents[1] / "docs" / "constants.md"
SECTION = re.compile(r"^## (.*?)\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ROW = re.compile(r"^\| (.*?) \|", re.MULTILINE)


def plain(cell):
    return cell.replace("`", "")


def converted():
    """Run the page and return, for each section with code, the labels of its table's rows and its pairs."""
    torch.manual_seed(0)
    text = PAGE.read_text(encoding="utf-8")
    namespace, found = {"__name__": "example"}, {}
    exec(BLOCK.search(text)[1], namespace)  # names of the whole page, above the first section
    for title, section in SECTION.findall(text):
        blocks = BLOCK.findall(section)
        if blocks:
            namespace.pop("checks", None)
            for block in blocks:
                exec(compile(block, f"constants.md, {title}", "exec"), namespace)
            labels = [plain(label) for label in ROW.findall(section)[2:]]
            found[title] = labels, namespace["checks"]
    return found


@pytest.fixture(scope="module")
def sections():
    return converted()


def test_each_row_of_the_tables_is_checked(sections):
    assert len(sections) == 5
    for labels, checks in sections.values():
        assert labels == list(checks)


def test_both_sides_agree(sections):
    pairs = [pair for _, checks in sections.values() for pair in checks.items()]
    assert len(pairs) == 65
    for label, (theirs, ours) in pairs:
        assert theirs is not ours
        assert theirs.dtype == torch.float64
        assert theirs.abs().max() > 1e-3, label
        # The tolerance that the page states.
        assert_close(ours, theirs, rtol=1e-10, atol=1e-12, msg=lambda text, label=label: f"{label}: {text}")
