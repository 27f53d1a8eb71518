"""What each example of the gallery starts with: seeds, one thread, and figures of one style."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib import style

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


ORDER = [
    *("first_mmd_gan", "attraction_and_repulsion", "bandwidth_and_saturation", "norm_of_a_convolution"),
    *("one_step_generator", "mmd_flow"),
    *("domain_adaptation",),
    *("drift_detection", "witness_function", "deep_kernel", "biased_floor"),
]
"""The examples by subject: GANs, generators without a discriminator, domain adaptation, tests and estimators."""


class BySubject:
    """Sort the scripts of the gallery as in `ORDER`; those that it does not name raise an error."""

    def __init__(self, src_dir: str) -> None:
        self.src_dir = src_dir

    def __call__(self, filename: str) -> int:
        """Return the place of a script."""
        return ORDER.index(filename.removesuffix(".py"))


def reset(gallery_conf: dict[str, Any], example: str) -> None:
    """Set the state before an example; sphinx-gallery calls it with its configuration and the name of the script."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    style.use(STYLE)
