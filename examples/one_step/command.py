"""Train a one-step generator by MMD on the features of frozen encoders, without a discriminator.

This is Representation Distribution Matching (arXiv 2607.02375) at small scale. The options offer other kernels, losses
and representations of the real features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from training.settings import read

from one_step.presets import PRESETS, resolved


def main(arguments: Sequence[str] | None = None) -> Path:
    """Train a preset with the options of a command line, and return the folder of the run."""
    settings = resolved(read(PRESETS, __doc__, arguments))
    # Imported here, since these modules take seconds to import: --help and refused options are answered at once.
    from training.processes import launch

    from one_step.train import train

    return launch(train, settings)
