"""Figure 3 in numbers: the FID of each pair of learning rates for each lambda, with both kernels."""

from __future__ import annotations

from pathlib import Path

from sweeps.summary import markdown

from studies import cells, protocol
from studies.repulsion import Repulsion, repulsions


def table(raw: Path) -> str:
    """Return the table."""
    head = ["kernel", "lambda", *map(cells.pair, protocol.PAIRS), "lowest", "diverged", "failed"]
    return markdown(head, map(_row, repulsions(raw)))


def _row(repulsion: Repulsion) -> list[str]:
    known, planned = len(repulsion.found), len(protocol.PAIRS)
    fids = [None if (found := repulsion.found.get(pair)) is None else found.fid for pair in protocol.PAIRS]
    counts = (cells.share(count, known, planned) for count in (repulsion.diverged, repulsion.failed))
    return [repulsion.kernel, str(repulsion.lambda_), *map(cells.fid, fids), cells.fid(repulsion.lowest), *counts]
