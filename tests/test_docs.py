"""The Python examples of the README and of the documentation run, page by page and in order."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import torch_mmd_losses

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]
OPTIONS = ["Estimator", "Features", "Method", "Normaliser", "Scale", "TestStatistic"]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    # Blank lines in front let a traceback name the line of the page.
    return ["\n" * text.count("\n", 0, match.start(1)) + match[1] for match in BLOCK.finditer(text)]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_python_blocks_run(page):
    torch.manual_seed(0)
    namespace = {"__name__": "example"}
    for block in blocks(page):
        exec(compile(block, ROOT / page, "exec"), namespace)


def test_the_entry_for_bibtex_is_that_of_the_citation_file():
    page = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    entry = page.partition("```bibtex\n")[2].partition("```")[0]
    fields = re.findall(r"(\w+) += \{+(.*?)\}+,?\n", entry, re.DOTALL)
    own = (ROOT / "CITATION.cff").read_text(encoding="utf-8").partition("references:")[0]
    cited = {name: text.strip('"') for name, text in re.findall(r"^(?:  - )?([\w-]+): (.+)$", own, re.MULTILINE)}
    assert {name: " ".join(text.split()) for name, text in fields} == {
        "author": cited["name"],
        "title": cited["title"],
        "version": torch_mmd_losses.__version__,
        "year": cited["date-released"][:4],
        "url": cited["repository-code"],
    }
    assert cited["version"] == torch_mmd_losses.__version__


@pytest.mark.parametrize("page", PAGES)
def test_lines_of_code_fit_the_column(page):
    """`docs/check_site.py` finds them too, but only on the built site, which is without the README."""
    text = (ROOT / page).read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```[^`\n]*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
    assert not [line for line in code.splitlines() if len(line) > 84]


class Discriminator(nn.Sequential):
    def __init__(self, outputs, sigmoid=False):
        assert not sigmoid
        super().__init__(
            nn.Conv2d(1, 4, 4, stride=2, padding=1), nn.LeakyReLU(0.1), nn.Flatten(), nn.Linear(64, outputs)
        )


@pytest.mark.parametrize("page", ["README.md", "docs/gan.md"])
def test_the_code_after_the_smallest_change_runs(page):
    diff = re.search(r"^```diff\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)[1]
    code = "\n".join(line[1:] for line in diff.splitlines() if not line.startswith("-"))
    generator, idle = nn.Sequential(nn.Linear(128, 64), nn.Unflatten(1, (1, 8, 8))), SimpleNamespace()
    idle.zero_grad = idle.step = lambda: None
    namespace = {"torch": torch, "nn": nn, "Discriminator": Discriminator, "loader": torch.randn(3, 6, 1, 8, 8)}
    namespace |= {"G": generator, "netG": generator, "nz": 128, "device": "cpu", "weights_init": lambda module: None}
    namespace |= dict.fromkeys(["opt_d", "opt_g", "optimizerD", "optimizerG"], idle)
    exec(code, namespace)
    discriminator = namespace.get("D") or namespace["netD"]
    assert all(p.grad.abs().sum() > 0 for p in generator.parameters())
    assert all(p.grad.isfinite().all() for p in discriminator.parameters())


@pytest.mark.repository
@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_exist(page):
    folder = (ROOT / page).parent
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = {target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)} - {""}
    here = {target for target in targets if not target.startswith("https://")}
    assert not [target for target in here if not (folder / source_of(target)).exists()]


def source_of(target):
    """Pages of the gallery are made from scripts."""
    made = re.fullmatch(r"auto_gallery/(\w+)\.rst", target)
    return target if made is None else "gallery/" + ("README.rst" if made[1] == "index" else f"{made[1]}.py")


def test_docstrings_link_to_pages_instead_of_naming_them():
    pages = "|".join(path.stem for path in (ROOT / "docs").glob("*.md"))
    for path in (ROOT / "torch_mmd_losses").rglob("*.py"):
        text = re.sub(r":doc:`[^`]+`", "", path.read_text(encoding="utf-8"))
        assert not re.findall(rf"\w+\.md\b|\b(?:{pages})\s+page", text), path


def test_every_public_name_is_in_the_reference():
    reference = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    tables = re.findall(
        r"^\.\. autosummary::\n   :toctree: api\n   :nosignatures:\n\n((?:   \w+\n)+)", reference, re.MULTILINE
    )
    documented = [name for table in tables for name in table.split()]
    results = [name for name, value in vars(torch_mmd_losses.results).items() if is_defined_in_results(value)]
    assert sorted(documented) == sorted([*torch_mmd_losses.__all__, *results, *OPTIONS])


def is_defined_in_results(value):
    return isinstance(value, type) and value.__module__ == torch_mmd_losses.results.__name__
