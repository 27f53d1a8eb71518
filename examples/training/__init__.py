"""What the training scripts share: settings, a run's folder, checkpoints, data sets and batches.

What a script cannot do without is looked for here, so that everything that is missing is named at once.
"""

import sys
from collections.abc import Sequence
from importlib.util import find_spec

PACKAGES = {
    "lightning_fabric": "lightning-fabric",
    "PIL": "pillow",
    "ray": "ray[tune]",
    "sklearn": "scikit-learn",
    "torch_fidelity": "torch-fidelity",
}
"""Names of packages that differ from those of their modules."""

ADVICE = """Keep your PyTorch and install what the scripts need by
    python -c "import torch; print('torch==' + torch.__version__)" > torch.txt
    pip install --constraint torch.txt -e ".[paper]"
docs/install.md has the releases of torchvision that go with those of PyTorch."""


def need(*modules: str, also: Sequence[str] = ()) -> None:
    """Exit with status 2 if modules are not installed, and name them with those that most uses need also."""
    missing = [module for module in (*modules, *also) if find_spec(module) is None]
    if not set(missing).issubset(also):
        names = ", ".join(PACKAGES.get(module, module) for module in missing)
        print(f"Not installed: {names}. {ADVICE}", file=sys.stderr)
        sys.exit(2)


OF_SOME = ("matplotlib", "ray", "sklearn", "torchmetrics", "torchvision")
"""What some scripts need, so that whoever has to install packages hears of all."""

need("filelock", "lightning_fabric", "PIL", "tqdm", "tyro", also=OF_SOME)
