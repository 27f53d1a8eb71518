"""The gallery has an order for all of its scripts, and each of them ends in a picture."""

import ast
from pathlib import Path

import pytest
from gallery_figures import ORDER, BySubject

GALLERY = Path(__file__).parents[2] / "docs" / "gallery"


def test_the_order_names_every_script():
    assert sorted(f"{name}.py" for name in ORDER) == sorted(path.name for path in GALLERY.glob("*.py"))
    assert BySubject("")(f"{ORDER[2]}.py") == 2


@pytest.mark.parametrize("name", ORDER)
def test_a_script_ends_in_a_picture(name):
    last = ast.parse((GALLERY / f"{name}.py").read_text(encoding="utf-8")).body[-1]
    assert ast.unparse(last) == "plt.show()"
