"""The table of a sweep in Markdown: each setting at its best pair of learning rates, as Table 1 of the paper has it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from sweeps.folders import Status
from sweeps.plan import Group
from sweeps.results import Row, best, first_seed, groups, metric_names

HEADINGS = {
    "fid": "FID",
    "kid_mean": "KID",
    "inception_score_mean": "IS",
    "ms_ssim": "MS-SSIM",
    "class_coverage": "class coverage",
}
"""What metrics are called in tables and figures, unless as they are."""

NONE = "-"
"""Stands where there is no number."""


def heading(metric: str) -> str:
    """Return what a metric is called."""
    return HEADINGS.get(metric, metric)


def summary(meaning: str, rows: Sequence[Row], metric: str) -> str:
    """Return the summary of a sweep as a page of Markdown.

    Args:
        meaning: what the sweep shows.
        rows: its runs.
        metric: decides which pair is best; lower is better.
    """
    counts = Counter(row.status for row in rows)
    listed = ", ".join(f"{counts[status]} {status.value}" for status in Status if counts[status])
    # What an evaluation says about its own uncertainty is in the table of the runs.
    metrics = [name for name in metric_names(rows) if not name.endswith(("_std", "_sd"))]
    options = list(dict.fromkeys(option for row in rows for option, _ in row.run.group))
    head = [*options, "lr of D, G", *map(heading, metrics), "seeds", "diverged"]
    body = [_cells(group, of_group, options, metrics, metric) for group, of_group in groups(rows).items()]
    return "\n".join(
        [
            f"# Sweep over {meaning}",
            "",
            f"{len(rows)} runs: {listed}. {_origin(rows)}",
            "",
            f"Each setting is shown at the pair of learning rates with the lowest {heading(metric)} of its first seed: "
            "mean ± standard deviation over the seeds that finished at that pair. The last column counts the pairs "
            "that diverged with the first seed, of those that came to an end.",
            "",
            markdown(head, body),
        ]
    )


def _origin(rows: Sequence[Row]) -> str:
    """Say what the runs are of and how they were measured, and whether that is one and the same."""
    commands = dict.fromkeys(f"`{row.command}`" for row in rows)
    evaluations = dict.fromkeys(f"`{row.evaluation.name}`" for row in rows if row.evaluation)
    words = f"Trained by {', by '.join(commands)}; measured in {', in '.join(evaluations) or 'no evaluation'}."
    alike = len(commands) == 1 and len(evaluations) <= 1
    return words if alike else f"**These runs cannot be compared.** {words}"


def _cells(group: Group, rows: Sequence[Row], options: Sequence[str], metrics: Sequence[str], metric: str) -> list[str]:
    chosen = best(rows, metric)
    values = dict(group)
    first = Counter(row.status for row in first_seed(rows))
    ended = first[Status.DIVERGED] + first[Status.FINISHED]
    cells = [values.get(option, "") for option in options]
    if chosen is None:
        cells += [NONE] * (len(metrics) + 2)
    else:
        cells += [" / ".join(chosen.pair), *(str(chosen.metric(name) or NONE) for name in metrics)]
        measured = sum(metric in row.metrics for row in chosen.rows)
        cells.append(str(measured) if measured == len(chosen.rows) else f"{measured} of {len(chosen.rows)}")
    return [*cells, f"{first[Status.DIVERGED]} of {ended}"]


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown, by the cells of its lines."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
