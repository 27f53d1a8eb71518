"""What a script cannot do without: everything that is missing is named at once."""

from __future__ import annotations

import sys
from importlib.util import find_spec

PACKAGES = {
    "lightning_fabric": "lightning-fabric",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "torch_fidelity": "torch-fidelity",
}
"""Names of packages that differ from those of their modules."""


def need(*modules: str) -> None:
    """Exit with status 2 if modules are not installed, and say how to install all that are missing."""
    missing = [PACKAGES.get(module, module) for module in modules if find_spec(module) is None]
    if missing:
        print(
            f"Not installed: {', '.join(missing)}. Keep your PyTorch and install what the scripts need by\n"
            "    python -c \"import torch; print('torch==' + torch.__version__)\" > torch.txt\n"
            '    pip install --constraint torch.txt -e ".[paper]"\n'
            "docs/experiments.md has the releases of torchvision that go with those of PyTorch.",
            file=sys.stderr,
        )
        sys.exit(2)
