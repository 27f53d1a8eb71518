"""The naive forms in the tables of the documentation do what the tables say: they raise, they warn, or they are silent.

A table whose first column is "naive form" has code in its first cells. The second cell quotes the first words of the
error or of the warning, or begins with "silent".
"""

import ast
import re
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

DOCS = Path(__file__).parents[1] / "docs"
TABLE = re.compile(r"^\| naive form \|.*\n\|[-| ]*\n(?P<rows>(?:\|.*\n)+)", re.MULTILINE)
BLOCK_OR_TABLE = re.compile(rf"^```python\n(?P<block>(?s:.*?))^```$|{TABLE.pattern}", re.MULTILINE)
BLOCK_OF_PROGRAM = re.compile(r"^```python (tests/foreign/\w+\.py)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`([^`]+)`")
MESSAGE = re.compile(r"`((?:\w*Error|UsageWarning): [^`]+)`")


def text_of(page):
    return (DOCS / page).read_text(encoding="utf-8")


class NaiveForm(NamedTuple):
    code: str
    effect: str
    line: int


def parts(page):
    """Return the blocks and the naive forms of a page, in order, as code and what the page says of it."""
    text = text_of(page)
    found = []
    for match in BLOCK_OR_TABLE.finditer(text):
        line = text.count("\n", 0, match.start(match.lastgroup))
        if match["block"] is not None:
            found.append(NaiveForm(match["block"], "", line))
            continue
        for i, row in enumerate(match["rows"].splitlines()):
            code, effect = row.split(" | ")[:2]
            found.append(NaiveForm("\n".join(CODE.findall(code)), effect, line + i))
    return found


def run(part, page, namespace):
    # Blank lines in front let a traceback name the line of the page.
    exec(compile("\n" * part.line + part.code, DOCS / page, "exec"), namespace)


def outcome(part, page, namespace):
    """Run a naive form, and return its error or its warning as text, or "silent"."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            run(part, page, dict(namespace))
        except Exception as error:
            return described(error)
    messages = [described(warning.message) for warning in caught]
    return " and ".join(messages) or "silent"


def described(message):
    return f"{type(message).__name__}: {' '.join(str(message).split())}"


@pytest.mark.parametrize("page", [path.name for path in sorted(DOCS.glob("*.md")) if TABLE.search(text_of(path))])
def test_naive_forms_do_what_the_page_says(page):
    torch.manual_seed(0)
    namespace, wrong = {"__name__": "example"}, []
    for part in parts(page):
        if not part.effect:
            run(part, page, namespace)
            continue
        quoted = MESSAGE.findall(part.effect)
        assert len(quoted) == 1 or part.effect.startswith("silent"), f"{page}:{part.line + 1}: {part.effect}"
        expected, found = quoted[0] if quoted else "silent", outcome(part, page, namespace)
        if not found.startswith(expected) or " and UsageWarning" in found:
            wrong.append(f"{page}:{part.line + 1}: {expected!r}, got {found!r}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("program", "code"), BLOCK_OF_PROGRAM.findall(text_of("gan.md")))
def test_code_that_needs_other_packages_is_that_of_a_tested_program(program, code):
    (shown, *_), tested = statements(code), statements((DOCS.parent / program).read_text(encoding="utf-8"))
    assert any(shown == body[i : i + len(shown)] for body in tested for i in range(len(body)))


def statements(code):
    """Return all sequences of statements of a program, without comments and formatting."""
    bodies = [getattr(node, "body", None) for node in ast.walk(ast.parse(code))]
    return [[ast.dump(statement) for statement in body] for body in bodies if isinstance(body, list)]
