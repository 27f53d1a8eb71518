"""Links from code in the text, such as `mmd2` or `MMDLoss()`, to the page of the object."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

import torch_mmd_losses
from torch_mmd_losses import results

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sphinx.application import Sphinx

PACKAGE = torch_mmd_losses.__name__

# Text that is a title, a link or a declaration already stays as it is.
_LEFT_ALONE = (nodes.title, nodes.reference, nodes.term, addnodes.pending_xref, addnodes.desc_signature)

# Names of PyTorch as the pages write them; each is in `_inventories/torch.inv`.
PYTORCH_NAMES = {
    "DataLoader": "torch.utils.data.DataLoader",
    "DistributedDataParallel": "torch.nn.parallel.DistributedDataParallel",
    "torch.Generator": "torch.Generator",
    "torch.autocast": "torch.autocast",
    "torch.compile": "torch.compile",
    "torch.distributed.all_reduce": "torch.distributed.all_reduce",
    "torch.func.grad": "torch.func.grad",
}


def public_names(members: Mapping[str, str]) -> dict[str, str]:
    """Map each name that the pages may use to the full name of its object.

    Args:
        members: documented members of each class, separated by commas.
    """
    own = {name: f"{PACKAGE}.{name}" for name in torch_mmd_losses.__all__}
    own |= {name: f"{PACKAGE}.results.{name}" for name in members if hasattr(results, name)}
    for name, listed in members.items():
        own |= {f"{name}.{member.strip()}": f"{own[name]}.{member.strip()}" for member in listed.split(",")}
    return own | {target: target for target in own.values()} | PYTORCH_NAMES


def named_object(code: str) -> str | None:
    """Return the dotted name that an expression consists of, or calls, else None."""
    try:
        expression = ast.parse(code, mode="eval").body
    except SyntaxError:
        return None
    if isinstance(expression, ast.Call):
        expression = expression.func
    is_dotted = all(isinstance(part, (ast.Name, ast.Attribute, ast.expr_context)) for part in ast.walk(expression))
    return ast.unparse(expression) if is_dotted else None


class LinkPublicNames(SphinxTransform):
    """Turn literals that name a public object into references to it."""

    default_priority = 500

    def apply(self, **_: Any) -> None:  # noqa: ANN401
        """Visit all literals of the document."""
        names = public_names(self.config.autosummary_context["documented_members"])
        for literal in list(self.document.findall(nodes.literal)):
            name = named_object(literal.astext())
            if name not in names or self._stays(literal) or self._is_page_of(names[name]):
                continue
            link = addnodes.pending_xref(
                "",
                refdoc=self.env.current_document.docname,
                refdomain="py",
                reftype="obj",
                reftarget=names[name],
                refexplicit=True,
                refwarn=True,
            )
            literal.replace_self(link)
            link += literal

    def _stays(self, node: nodes.Node) -> bool:
        while node is not None:
            if isinstance(node, _LEFT_ALONE):
                return True
            node = node.parent
        return False

    def _is_page_of(self, target: str) -> bool:
        page = self.env.current_document.docname.removeprefix("api/")
        return target == page or target.startswith(f"{page}.")


# Where PyTorch defines a class, in place of where it documents it.
DEFINED_ELSEWHERE = {"torch._C.Generator": "torch.Generator"}


def name_as_documented(app: Sphinx, env: object, node: addnodes.pending_xref, content: object) -> None:
    """Correct the target of a reference, such as a type in a signature, before intersphinx looks for it."""
    target = node.get("reftarget")
    node["reftarget"] = DEFINED_ELSEWHERE.get(target, target)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the transform and the correction."""
    app.add_transform(LinkPublicNames)
    app.connect("missing-reference", name_as_documented, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
