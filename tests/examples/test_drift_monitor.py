"""The scripts on drift, and the functions that they share with the page on two samples."""

import ast
import inspect
from pathlib import Path

import drift_monitor
import drift_power
import pytest
import torch

PAGE = (Path(__file__).parents[2] / "docs" / "two_samples.md").read_text(encoding="utf-8")
SHARED = ["prepare", "holm", "alarms", "differing", "changed_columns", "changed_pairs", "moments", "products"]


def functions(code):
    """Return the functions of a module by name, without annotations."""
    found = {}
    for node in ast.parse(code).body:
        if isinstance(node, ast.FunctionDef):
            node.returns = None
            for argument in node.args.args:
                argument.annotation = None
            found[node.name] = node
    return found


CODE = "\n".join(block.partition("```")[0] for block in PAGE.split("```python\n")[1:])
ON_PAGE = functions(CODE)


def of_page(name):
    """Return a function of the page, without its other code."""
    namespace = {"torch": torch}
    exec(compile(ast.Module([ON_PAGE[name]], []), "two_samples.md", "exec"), namespace)
    return namespace[name]


@pytest.mark.parametrize("name", SHARED)
def test_the_page_has_the_same_functions(name):
    assert ast.dump(ON_PAGE[name]) == ast.dump(functions(inspect.getsource(drift_monitor))[name])


def test_holm_does_not_reject_without_a_p_value():
    nan = float("nan")
    assert of_page("holm")([nan, 0.5, 0.3, nan], 0.05) == [False] * 4
    assert of_page("holm")([0.5, 0.012, nan, 0.016], 0.05) == [False, True, False, True]
    assert of_page("holm")([0.02, 0.001, 0.03], 0.05) == [True, True, True]


def test_constant_columns_are_left_out():
    torch.manual_seed(0)
    reference = torch.cat([1e4 * torch.randn(50, 1), torch.full((50, 1), 0.1), torch.randn(50, 1) + 3], 1)
    standard = of_page("prepare")(reference)(reference)
    assert standard.shape == (50, 2)
    assert standard.isfinite().all()
    torch.testing.assert_close(standard.mean(0), torch.zeros(2), rtol=0, atol=1e-5)  # rounding in float32
    torch.testing.assert_close(standard.std(0), torch.ones(2))


def test_the_monitor_finds_the_changes_and_names_them(capsys, monkeypatch):
    monkeypatch.setattr(drift_monitor, "COLUMNS", 6)
    drift_monitor.main(["--reference-rows", "300", "--rows", "100", "--pooled-days", "4", "--days", "4", "56"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "day 4: no alarm"
    assert "pairs" in lines[1].partition(";")[0]
    assert lines[1].endswith("pairs [[0, 1]]")
    assert "s of processor time a day" in lines[2]


def test_the_power_of_the_tests(capsys):
    drift_power.main(["--rounds", "2", "--sizes", "2000", "--tests", "moments", "products of pairs"])
    rows = [row.strip("| ").split(" | ") for row in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["change", "new rows", "moments", "products of pairs"]
    shares = {row[0]: row[1:] for row in rows[2:]}
    assert set(shares) == set(drift_power.CHANGES)
    assert shares["variance of all columns by 30 %"][1] == "1.00"
    assert shares["sign of one correlation of 0.5"] == ["2000", "0.00", "1.00"]
