"""Warnings name the user's line, once."""

import warnings

import pytest
import torch

from torch_mmd_losses import UsageWarning, usage_warnings


def test_a_line_is_warned_of_once_for_each_mistake():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            usage_warnings.warn("first", "a")
        for kind in ("first", "second"):
            usage_warnings.warn(kind, kind)
    assert [str(warning.message) for warning in caught] == ["a", "first", "second"]
    assert {warning.category for warning in caught} == {UsageWarning}
    assert {warning.filename for warning in caught} == {__file__}


def test_the_line_is_that_of_the_caller_of_torch():
    class Module(torch.nn.Module):
        def forward(self):
            exec(
                compile("usage_warnings.warn('inner', 'a')", usage_warnings.__file__, "exec"),
                {"usage_warnings": usage_warnings},
            )

    module = Module()
    Module.forward.__code__ = Module.forward.__code__.replace(co_filename=usage_warnings.__file__)
    with pytest.warns(UsageWarning, match="^a$") as caught:
        module()
    assert caught[0].filename == __file__


def test_nothing_is_said_under_the_compiler(monkeypatch):
    @torch.compile(backend="eager", fullgraph=True)
    def step(x):
        usage_warnings.warn("compiled", "a")
        return x + 1

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(torch.zeros(1))
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        usage_warnings.warn("traced", "a")
    assert not usage_warnings.is_first_call_from_place()


def test_the_first_call_from_each_place():
    def examined():
        return usage_warnings.is_first_call_from_place()

    def elsewhere():
        return examined()

    assert [examined() for _ in range(3)] == [True, False, False]
    assert (examined(), examined()) == (True, True)
    assert [elsewhere(), elsewhere()] == [True, False]


def test_the_first_call_from_each_place_through_a_decorator():
    @torch.no_grad()
    def examined():
        return usage_warnings.is_first_call_from_place()

    assert [examined() for _ in range(3)] == [True, False, False]
    assert (examined(), examined()) == (True, True)


def test_the_first_call_from_each_place_through_a_module():
    class Module(torch.nn.Module):
        def forward(self):
            return usage_warnings.is_first_call_from_place()

    module = Module()
    assert [module() for _ in range(3)] == [True, False, False]
    assert (module(), module()) == (True, True)


def test_code_that_is_run_once_is_not_taken_for_later_code_at_its_address():
    def examined():
        return usage_warnings.is_first_call_from_place()

    def cell(number):
        names = {"examined": examined}
        exec(compile(f"found = examined()  # {number}", f"<cell {number}>", "exec"), names)
        return names["found"]

    assert all(cell(number) for number in range(50))
