"""What the examples in the docstrings take for granted: the names of the library, torch and a fixed seed."""

from __future__ import annotations

import pytest
import torch

import torch_mmd_losses


@pytest.fixture(autouse=True)
def _doctest_names(request: pytest.FixtureRequest, doctest_namespace: dict[str, object]) -> None:
    if isinstance(request.node, pytest.DoctestItem):
        torch.manual_seed(0)
        doctest_namespace["torch"] = torch
        doctest_namespace.update({name: getattr(torch_mmd_losses, name) for name in torch_mmd_losses.__all__})
