"""Shared parts of the training scripts: settings, the folder of a run, checkpoints, data sets and batches.

Importing this package checks that the packages of the scripts are installed, and names all missing ones at once.
"""

import sys
from collections.abc import Sequence
from importlib.util import find_spec

ADVICE = """Keep your PyTorch and install the packages of the scripts by
    python -c "import torch; print('torch==' + torch.__version__)" > torch.txt
    pip install --constraint torch.txt -e ".[paper]"
docs/install.md has the releases of torchvision that go with those of PyTorch."""


def need(*modules: str, also: Sequence[str] = ()) -> None:
    """Exit with status 2 if one of the modules is not installed; the message also names missing ones of `also`."""
    missing = [module for module in (*modules, *also) if find_spec(module) is None]
    if not set(missing).issubset(also):
        print(f"Not installed: {', '.join(missing)}. {ADVICE}", file=sys.stderr)
        sys.exit(2)


def find_modules_here() -> None:
    """Let imports find modules of users in the current folder, as with `python -m`, after all others."""
    if "" not in sys.path:
        sys.path.append("")


# Only some scripts need those of `also`, but whoever has to install packages should see the whole list.
OF_SOME = ("matplotlib", "ray", "sklearn", "torchmetrics", "torchvision")
need("filelock", "lightning_fabric", "PIL", "tqdm", "tyro", also=OF_SOME)
