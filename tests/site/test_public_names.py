"""Names in the text become links to the reference."""

import io
import re

import pytest
import torch
from public_names import DEFINED_ELSEWHERE, PYTORCH_NAMES, name_as_documented, named_object, public_names
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace
from sphinx.util.inventory import InventoryFile

import torch_mmd_losses

CONF = """
extensions = ["myst_parser", "public_names"]
exclude_patterns = ["_build"]
autosummary_context = {"documented_members": {"MMDLoss": "both, terms"}}
def setup(app):
    app.add_config_value("autosummary_context", {}, "env")
"""
OBJECTS = """
```{eval-rst}
.. py:currentmodule:: torch_mmd_losses
.. py:function:: mmd2(real, fake)
.. py:class:: MMDLoss
.. py:method:: MMDLoss.terms
```
"""


@pytest.fixture
def built(tmp_path):
    def build(text, own_page=""):
        (tmp_path / "conf.py").write_text(CONF, encoding="utf-8")
        (tmp_path / "index.md").write_text(f"# Title\n\n{text}\n{OBJECTS}", encoding="utf-8")
        (tmp_path / "api").mkdir()
        page = f"---\norphan: true\n---\n# Title\n\n{own_page}\n"
        (tmp_path / "api" / "torch_mmd_losses.MMDLoss.md").write_text(page, encoding="utf-8")
        warnings = io.StringIO()
        out = str(tmp_path / "_build")
        with docutils_namespace():
            Sphinx(str(tmp_path), str(tmp_path), out, out, "html", status=None, warning=warnings).build()
        assert not warnings.getvalue()
        name = "api/torch_mmd_losses.MMDLoss.html" if own_page else "index.html"
        html = (tmp_path / "_build" / name).read_text(encoding="utf-8")
        # Links within the text; declarations and the navigation have others.
        return re.findall(r'<a class="reference internal" href="[./\w]*#([\w.]+)"[^>]*><code[^>]*>', html)

    return build


def test_names_and_calls_are_links(built):
    assert built("`mmd2`, `MMDLoss(lambda_=-1)`, `MMDLoss.terms`") == [
        "torch_mmd_losses.mmd2",
        "torch_mmd_losses.MMDLoss",
        "torch_mmd_losses.MMDLoss.terms",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "`mmd2 = 3`",
        "`mmd2(real, fake).sqrt()`",
        "`MMDLoss.other`",
        "## On `mmd2`",
        "[`mmd2`](https://example.org)",
        "```python\nmmd2\n```",
    ],
)
def test_other_code_titles_links_and_blocks_stay(built, text):
    assert built(text) == []


def test_a_page_has_no_links_to_itself(built):
    assert built("", own_page="`MMDLoss`, `MMDLoss.terms` and `mmd2`") == ["torch_mmd_losses.mmd2"]


def test_every_public_name_and_member_is_known():
    names = public_names({"MMDLoss": "both, terms", "Terms": "k_rr"})
    assert set(torch_mmd_losses.__all__) <= set(names)
    assert names["MMDLoss.both"] == "torch_mmd_losses.MMDLoss.both"
    assert names["Terms.k_rr"] == "torch_mmd_losses.results.Terms.k_rr"
    assert names["torch_mmd_losses.mmd2"] == names["mmd2"]


def test_names_of_pytorch_are_in_the_inventory(request):
    path = request.config.rootpath / "docs" / "_inventories" / "torch.inv"
    inventory = InventoryFile.loads(path.read_bytes(), uri="").data
    known = {name for objects in inventory.values() for name in objects}
    assert set(PYTORCH_NAMES.values()) <= known
    assert inventory["py:class"]["torch.Tensor"].uri == "tensors.html#torch.Tensor"


def test_what_is_not_an_expression_names_nothing():
    assert named_object("real=") is None
    assert named_object("a.b") == named_object("a.b(1)") == "a.b"


def test_types_in_signatures_have_the_names_of_the_inventory():
    defined = f"{torch.Generator.__module__}.{torch.Generator.__qualname__}"
    node = addnodes.pending_xref("", reftarget=defined)
    name_as_documented(None, None, node, None)
    assert node["reftarget"] == DEFINED_ELSEWHERE[defined] == "torch.Generator"
