"""PICO beside the norm of the reshaped matrix, constant by constant."""

from __future__ import annotations

import itertools
from pathlib import Path

from sweeps.summary import markdown

from studies import cells, results
from studies.protocol import NORMS, SCALES, setting


def table(raw: Path) -> str:
    """Return the table."""
    rows = []
    for scale, (name, normalisation) in itertools.product(SCALES, NORMS.items()):
        found = results.over_seeds(raw, setting("mmd-rep", normalisation=normalisation, scale=scale))
        rows.append([f"{scale:.3g}", name, *cells.measured(found)])
    return markdown(["C", "norm", *cells.MEASURED], rows)
