"""What has come of the runs in the folder of a sweep: a row for each, and the best learning rates of each setting."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dcgan.atomic import replacing

from sweeps.folders import Evaluation, Folder, Status
from sweeps.grids import Study, order
from sweeps.plan import Group, Pair, Run


@dataclass(frozen=True)
class Row:
    """A run and how far it is."""

    run: Run
    status: Status
    iteration: int
    evaluation: Evaluation | None
    """The measurements of its last state; None unless it is finished."""
    command: str
    """The script and the options that do not vary."""

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers of the evaluation."""
        return {} if self.evaluation is None else self.evaluation.metrics


class Spread(NamedTuple):
    """A metric over seeds."""

    mean: float
    deviation: float | None
    """Standard deviation of the sample, None of a single seed."""

    def __str__(self) -> str:
        digits = 2 if abs(self.mean) >= 1 else 4
        end = "" if self.deviation is None else f" ± {self.deviation:.{digits}f}"
        return f"{self.mean:.{digits}f}{end}"


@dataclass(frozen=True)
class Best:
    """A setting at the pair of learning rates that is best for it."""

    pair: Pair
    rows: list[Row]
    """The runs at that pair, by seed."""

    def metric(self, name: str) -> Spread | None:
        """Return a metric over the seeds that have it."""
        return spread(row.metrics[name] for row in self.rows if name in row.metrics)


def rows_of(study: Study, name: str, out: Path, evaluations: str = "*.json") -> list[Row]:
    """Return all runs of a study in a folder, in the order of the study, then of learning rates and seeds.

    Args:
        study: the study.
        name: what it is called.
        out: folder of the sweep.
        evaluations: which of the files of a run's evaluations to look at; of several, the last by name counts.
    """
    rows = []
    for folder in map(Folder, out.glob("*/")):
        description = folder.description()
        if description is None or description["study"] != name:
            continue
        status = folder.status()
        outcome = folder.outcome()
        iteration = folder.iteration() if outcome is None or outcome.iteration is None else outcome.iteration
        evaluation = folder.evaluation(iteration, evaluations) if status is Status.FINISHED else None
        command = " ".join([description["script"], *description["options"]])
        rows.append(Row(Run(description["settings"]), status, iteration, evaluation, command))
    return sorted(rows, key=lambda row: [order(study, *item) for item in row.run.settings.items()])


def groups(rows: Iterable[Row]) -> dict[Group, list[Row]]:
    """Return the rows of each setting, in the order in which settings come first."""
    found: dict[Group, list[Row]] = {}
    for row in rows:
        found.setdefault(row.run.group, []).append(row)
    return found


def first_seed(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of the lowest seed among them."""
    first = min(row.run.seed for row in rows)
    return [row for row in rows if row.run.seed == first]


def is_known(row: Row, metric: str) -> bool:
    """Return whether a run has come to its end: it has the metric, or it diverged."""
    return metric in row.metrics or row.status is Status.DIVERGED


def best(rows: Sequence[Row], metric: str) -> Best | None:
    """Return the best pair of one setting, or None if no run has the metric.

    The pair is that of the lowest value among the runs of the lowest seed: seeds that are added at this pair later
    cannot change the choice.
    """
    candidates = [row for row in first_seed(rows) if metric in row.metrics]
    if not candidates:
        return None
    pair = min(candidates, key=lambda row: row.metrics[metric]).run.pair
    return Best(pair, sorted((row for row in rows if row.run.pair == pair), key=lambda row: row.run.seed))


def spread(values: Iterable[float]) -> Spread | None:
    """Return mean and standard deviation, or None if there are no values."""
    listed = list(values)
    if not listed:
        return None
    return Spread(statistics.fmean(listed), statistics.stdev(listed) if len(listed) > 1 else None)


def metric_names(rows: Iterable[Row]) -> list[str]:
    """Return the metrics that any run has, in the order of the evaluations."""
    return list(dict.fromkeys(name for row in rows for name in row.metrics))


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write one line for each run: settings, status, iteration, metrics."""
    options = list(dict.fromkeys(option for row in rows for option in row.run.settings))
    metrics = metric_names(rows)
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*options, "status", "iteration", *metrics, "evaluation"])
        for row in rows:
            settings = [row.run.settings.get(option, "") for option in options]
            numbers = [row.metrics.get(name, "") for name in metrics]
            writer.writerow(
                [*settings, row.status.value, row.iteration, *numbers, row.evaluation.name if row.evaluation else ""]
            )
