"""The repulsive loss with several numbers of scores per image."""

from __future__ import annotations

from pathlib import Path

from sweeps.summary import markdown

from studies import cells, results
from studies.protocol import SCORES, setting


def table(raw: Path) -> str:
    """Return the table."""
    found = {count: results.over_seeds(raw, setting("mmd-rep", scores=count)) for count in SCORES}
    return markdown(["scores", *cells.MEASURED], ([str(count), *cells.measured(of)] for count, of in found.items()))
