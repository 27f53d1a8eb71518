"""What each example of the gallery starts with: seeds, one thread, and figures of one style."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import torch

STYLE = {
    "figure.figsize": (7.2, 3.4),
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "image.interpolation": "nearest",
}


def reset(gallery_conf: dict[str, Any], example: str) -> None:
    """Set the state before an example; sphinx-gallery calls it with its configuration and the name of the script."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    mpl.rcParams.update(STYLE)
