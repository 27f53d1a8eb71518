"""Table 1 in the small: each loss at its best pair of learning rates, and the floor of the metrics."""

from __future__ import annotations

from pathlib import Path

from dcgan.reading import read_json
from sweeps.summary import NONE, markdown

from studies import cells, protocol, results

FLOOR = "floor.json"
"""What `examples/evaluate.py --floor` found."""


def table(raw: Path) -> str:
    """Return the table."""
    best, rows = results.best_pairs(raw), []
    for chosen in protocol.QUESTIONS["losses"].settings:
        loss, tried = dict(chosen)["loss"], results.over_pairs(raw, chosen)
        failed = cells.share(sum(each.failed for each in tried.values()), len(tried), len(protocol.PAIRS))
        rows.append([loss, cells.pair(best.get(loss)), *cells.measured(results.over_seeds(raw, chosen)), failed])
    return markdown(["loss", "lr of D / G", *cells.MEASURED, "pairs that failed"], [*rows, _floor(raw / FLOOR)])


def _floor(path: Path) -> list[str]:
    metrics = [read_json(path, metrics=dict)["metrics"]] if path.exists() else []
    return ["floor: training images", NONE, *cells.metrics(metrics), NONE, NONE]
