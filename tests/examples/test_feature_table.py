"""The table that compares features: what the probes find wrong, and that the page is what the script writes."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "examples" / "benchmarks"
PARTS = ("libraries", "probes", "kernels", "in_processes", "elsewhere")
NAMES = ("feature_table", *(f"compared.{part}" for part in PARTS))


@pytest.fixture(scope="module")
def script():
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield SimpleNamespace(**{name.rpartition(".")[2]: importlib.import_module(name) for name in NAMES})
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def outcome(script, name, library):
    """Return the answer of a probe that may raise."""
    return script.probes.quiet(lambda: getattr(script.probes, name)(library))[0]


def right(script):
    """Return a library whose value is written out."""
    gaussian = script.libraries.gaussian

    def value(x, y):
        if min(len(x), len(y)) < 2:
            raise ValueError("two samples")
        precise = [sample if sample.dtype == torch.float64 else sample.double() for sample in (x, y)]
        found = script.probes.unbiased(gaussian, *precise)
        return found if x.dtype == torch.float64 else found.float()

    return script.libraries.Library("torch", value, gaussian)


def gram_products(x, y):
    """MMD^2 from matrix products in the dtype of the samples, which loses digits."""

    def gram(a, b):
        return torch.exp(-(a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T) / 2)

    (m, n), xx, yy = (len(x), len(y)), gram(x, x), gram(y, y)
    within = (xx.sum() - xx.trace()) / (m * (m - 1)) + (yy.sum() - yy.trace()) / (n * (n - 1))
    return within - 2 * gram(x, y).mean()


WRONG = {
    "is_unbiased": lambda value: lambda x, y: value(x, y) + 0.01,
    "may_be_negative": lambda value: lambda x, y: value(x, y).clamp_min(0),
    "takes_different_sizes": lambda value: lambda x, y: value(x[: len(y)], y),
    "has_gradient": lambda value: lambda x, y: value(x, y.detach()) + 0 * y.sum(),
    "has_second_derivative": lambda value: lambda x, y: once_only(value, x, y),
    "keeps_digits_of_bfloat16": lambda _: gram_products,
    "keeps_digits_under_autocast": lambda _: gram_products,
    "keeps_digits_far_away": lambda _: gram_products,
    "survives_collapse": lambda value: lambda x, y: value(x, y) + 0 * (x[0] - x[1]).norm().log(),
    "shows_nan": lambda value: lambda x, y: value(x, y).nan_to_num(),
    "refuses_one_sample": lambda value: lambda x, y: value(x, y) if len(x) > 1 else torch.tensor(float("nan")),
}


def once_only(value, x, y):
    """Return a value with the right gradient, whose second derivative is silently zero."""
    found = value(x, y)
    if not x.requires_grad:
        return found
    (slope,) = torch.autograd.grad(found, x)
    return found.detach() + (slope * (x - x.detach())).sum() + 0 * x.pow(3).sum()


@pytest.mark.parametrize("name", WRONG)
def test_a_probe_tells_right_from_wrong(script, name):
    library = right(script)
    assert outcome(script, name, library) is True
    wrong = replace(library, value=WRONG[name](library.value))
    assert outcome(script, name, wrong) is False


def test_a_biased_estimate_is_named_so_and_asked_no_more(script):
    library = right(script)
    biased = replace(library, value=lambda x, y: script.probes.biased(library.kernel, x, y))
    assert outcome(script, "is_unbiased", biased) is False
    assert outcome(script, "may_be_negative", biased) is None
    assert outcome(script, "refuses_one_sample", biased) is None
    assert outcome(script, "has_gradient", biased) is True


def test_diagonals_that_stay_are_a_wrong_value_with_a_right_gradient(script):
    library = right(script)
    offset = replace(library, value=lambda x, y: script.probes.with_diagonals(library.kernel, x, y))
    assert outcome(script, "is_unbiased", offset) is False
    assert outcome(script, "takes_different_sizes", offset) is True
    assert outcome(script, "has_gradient", offset) is True


def test_calls_that_a_library_may_have(script):
    library = right(script)
    probes = ("takes_weights", "takes_groups", "has_linear_time", "has_gan_losses", "normalises_convolutions")
    probes += ("has_p_value", "p_value_is_not_zero", "tests_different_sizes", "shows_nan_in_a_test")
    assert {outcome(script, name, library) for name in probes} == {None}
    wrong = replace(
        library,
        weighted=lambda x, y, w: script.probes.biased(library.kernel, x, y),
        groups=lambda x, y: torch.zeros(3).double(),
        linear_time=library.value,
        gan=lambda x, y: (-library.value(x, y), library.value(x, y)),
        wrapped=lambda layer, like: nn.utils.parametrizations.spectral_norm(layer),
        p_value=lambda x, y: 0.0,
    )
    for name in probes[:-2]:
        assert outcome(script, name, wrong) is False, name
    refusing = replace(library, p_value=lambda x, y: 0.5)
    for name in probes[-2:]:
        assert outcome(script, name, refusing) is False, name


def test_a_constant_p_value_is_no_test(script):
    library = replace(right(script), p_value=lambda x, y: 0.5)
    assert outcome(script, "has_p_value", library) is False


@pytest.mark.slow
def test_data_dependent_control_flow_does_not_compile(script):
    library = right(script)
    branching = replace(library, value=lambda x, y: library.value(x, y) if x.sum() > 0 else -library.value(x, y))
    assert outcome(script, "compiles", branching) == "error"


@pytest.mark.slow
def test_this_library_has_all_that_the_tables_ask_for(script):
    for table, name in (("losses", "this library"), ("metrics", "this library, KID"), ("tests", "this library")):
        library = script.libraries.LIBRARIES[name]()
        for feature, probe in script.feature_table.TABLES[table].probes.items():
            assert script.probes.quiet(partial(probe, library)) == (True, ""), feature


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_the_loss_of_a_joint_batch(script):
    assert script.in_processes.has_loss_of_joint_batch("this library") is True


def test_a_library_that_is_missing_is_not_checked(script, monkeypatch):
    monkeypatch.setitem(script.libraries.LIBRARIES, "geomloss", lambda: importlib.import_module("not_a_package"))
    records = list(script.feature_table.ask("losses", ["geomloss"]))
    assert records == [
        {"table": "losses", "library": "geomloss", "why": "ModuleNotFoundError: No module named 'not_a_package'"}
    ]
    lines = script.feature_table.features("losses", records).splitlines()
    assert all(
        line.endswith("| not checked | not checked | not checked | not checked | not checked |") for line in lines[2:]
    )


def test_an_error_is_an_answer_and_its_words_are_on_the_page(script, monkeypatch):
    def broken(x, y):
        raise TypeError("no bfloat16\nand more")

    library = replace(right(script), value=broken)
    asked = script.probes.quiet(partial(script.probes.is_unbiased, library))
    assert asked == ("error", "TypeError: no bfloat16")
    feature = next(iter(script.probes.LOSS))
    record = {"table": "losses", "library": "sbi", "feature": feature, "answer": "error", "error": "TypeError: no"}
    text = script.feature_table.features("losses", [record])
    assert f"| {feature} | not checked | not checked | not checked | error | not checked |" in text
    assert f"- sbi, {feature}: `TypeError: no`" in text


def test_kernels_and_the_formula_of_the_bandwidth(script):
    offer = script.kernels.of_ours()
    assert script.kernels.kernels(offer) == ["Gaussian", *(kernel.name for kernel in offer.others)]
    assert script.kernels.formula(offer) == "exp(-e / (2 s^2))"
    for power, expected in ((0.5, "exp(-e / (2 s))"), (2, "another")):
        other = offer._replace(gaussian=lambda s, power=power: offer.gaussian(s**power))
        assert script.kernels.formula(other) == expected
    wrong = offer._replace(others=[kernel._replace(gram=script.kernels.distance) for kernel in offer.others])
    assert script.kernels.kernels(wrong) == ["Gaussian"]


def test_features_of_others(script, monkeypatch):
    entry, table = script.elsewhere.Elsewhere, script.feature_table

    def broken():
        raise ValueError("no")

    entries = [
        entry("a", "PyTorch", "torch", lambda: True),
        entry("a", "nobody", "not-a-package", lambda: True),
        entry("b", "PyTorch", "torch", lambda: 7),
        entry("b", "PyTorch", "torch", broken),
        entry("c", "PyTorch", "torch", lambda: bool(importlib.import_module("not_a_module"))),
    ]
    monkeypatch.setattr(table, "ELSEWHERE", entries)
    lines = table.elsewhere(list(table.ask_elsewhere())).splitlines()
    assert lines[2:] == [
        "| a | PyTorch, nobody: not checked |",
        "| b | PyTorch: 7, PyTorch: error |",
        "| c | PyTorch: not checked |",
    ]


def test_the_page_is_what_the_script_writes_from_the_records(script):
    path = BENCHMARKS / "results" / "feature_table.jsonl"
    run, *records = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    page = script.feature_table.PAGE.read_text(encoding="utf-8")
    assert script.feature_table.written(page, run, records) == page
    asked = {(r["table"], r["library"]) for r in records}
    for table, (libraries, _, _) in script.feature_table.TABLES.items():
        assert {(table, name) for name in libraries} <= asked


def test_a_page_without_the_marks_is_refused(script):
    run = {"command": "", "date": "", "processor": "", "system": "", "versions": {"Python": "", "torch": ""}}
    with pytest.raises(LookupError, match="comparison.md: expected the marks of the part 'losses'"):
        script.feature_table.written("# Comparison\n", run, [])
