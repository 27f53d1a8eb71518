"""Importing the library costs next to nothing once torch is there."""

import subprocess
import sys

import pytest

IMPORTED = """
import sys
import torch

before = set(sys.modules)
{statements}
print(*sorted(set(sys.modules) - before))
"""

USE = """
import torch_mmd_losses as library

scores = torch.zeros(4, 2, requires_grad=True)
layer = library.conv_spectral_norm(torch.nn.Conv2d(1, 2, 3))
layer(torch.ones(1, 1, 5, 5)).sum().backward()
library.MMDLoss().both(real=scores, fake=scores + 1).generator.backward()
library.mmd_test(scores, scores + 1, permutations=1)
"""


def modules_after(statements):
    """Return the names of the modules that a fresh interpreter has imported in addition to those of torch."""
    run = subprocess.run(
        [sys.executable, "-c", IMPORTED.format(statements=statements)], capture_output=True, text=True, check=True
    )
    return run.stdout.split()


@pytest.mark.slow
def test_the_library_imports_nothing_but_itself():
    others = [name for name in modules_after("import torch_mmd_losses") if not name.startswith("torch_mmd_losses")]
    # NumPy's annotations are the one thing that torch itself does not import.
    assert [name for name in others if not name.startswith("numpy")] == []
    assert len(others) <= 3


@pytest.mark.slow
@pytest.mark.parametrize("statements", ["import torch_mmd_losses", USE], ids=["import", "use"])
def test_the_compiler_is_not_imported(statements):
    assert not {"torch._dynamo", "torch._inductor", "sympy"} & set(modules_after(statements))
