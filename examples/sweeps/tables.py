"""The results of a sweep: a row for each run, a summary of each setting at its best pair, and a figure."""

from __future__ import annotations

import csv
import itertools
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sweeps.runs import SWEEPS, Group, Pair, Run, Status, evaluation, last_line, record, status
from training.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEADINGS = {"fid": "FID", "kid_mean": "KID", "inception_score_mean": "IS", "ms_ssim": "MS-SSIM"}
"""Headings of metrics, by default their names."""
MAPS = ("Blues", "Oranges", "Greens", "Purples", "Reds", "Greys")
"""Colours of bars by the learning rate of D, with shades by that of G."""
SIGNS = {"x": "x: diverged", "^": "triangle: above the axis", ".": "dot: no result yet"}


class Row(NamedTuple):
    """A run and its progress, with the metrics of its last state if it is finished."""

    run: Run
    status: Status
    iteration: int = 0
    metrics: Mapping[str, float] = {}
    evaluation: str = ""
    command: str = ""


def rows_of(study: str, out: Path, evaluations: str) -> list[Row]:
    """Return all runs of a sweep in a folder, in the order of the sweep, then of learning rates and seeds."""
    rows, listed = [], [str(value) for grid in SWEEPS[study].grids for values in grid.values() for value in values]
    for folder in out.glob("*/"):
        found = record(folder)
        if found and found["study"] == study:
            ended = found["status"] != "missing"
            iteration = (found if ended else last_line(folder))["iteration"]
            measured = evaluation(folder, iteration, evaluations) if found["status"] == "finished" else ("", {})
            command = " ".join([found["script"], *found["options"]])
            rows.append(Row(Run.of(found["settings"]), status(folder), iteration, measured[1], measured[0], command))

    def order(value: str) -> tuple[float, str]:
        try:
            return float(value), value
        except ValueError:
            return float(listed.index(value) if value in listed else len(listed)), value

    return sorted(rows, key=lambda row: [order(value) for value in row.run.settings.values()])


def spread(values: Iterable[float]) -> tuple[float, float | None] | None:
    """Return mean and standard deviation, which is None for one value; return None without values."""
    listed = list(values)
    return (statistics.fmean(listed), statistics.stdev(listed) if len(listed) > 1 else None) if listed else None


def shown(values: Iterable[float], digits: int | None = None) -> str:
    """Return mean ± standard deviation with two digits after the point, or with four if the mean is below 1."""
    mean, deviation = spread(values) or (math.nan, None)
    digits = digits if digits is not None else 2 if abs(mean) >= 1 else 4
    end = "" if deviation is None else f" ± {deviation:.{digits}f}"
    return "-" if math.isnan(mean) else f"{mean:.{digits}f}{end}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *rows))


def groups(rows: Iterable[Row]) -> dict[Group, list[Row]]:
    found: dict[Group, list[Row]] = {}
    for row in rows:
        found.setdefault(row.run.group, []).append(row)
    return found


def first_seed(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of the lowest seed among them."""
    return [row for row in rows if row.run.seed == min(each.run.seed for each in rows)]


def best(rows: Sequence[Row], metric: str) -> Pair | None:
    """Return the best pair of a setting with its first seed, so that further seeds do not change the choice."""
    known = [row for row in first_seed(rows) if metric in row.metrics]
    return min(known, key=lambda row: row.metrics[metric]).run.pair if known else None


def counted(statuses: Iterable[str]) -> str:
    return ", ".join(f"{number} {status}" for status, number in Counter(statuses).items())


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    options = dict.fromkeys(option for row in rows for option in row.run.settings)
    metrics = dict.fromkeys(name for row in rows for name in row.metrics)
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*options, "status", "iteration", *metrics, "evaluation"], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            of_run = {"status": row.status, "iteration": row.iteration, "evaluation": row.evaluation}
            writer.writerow({**row.run.settings, **of_run, **row.metrics})


def summary(meaning: str, rows: Sequence[Row], metric: str) -> str:
    """Return a page of Markdown with each setting at its best pair."""
    counts = counted(row.status for row in rows)
    commands = dict.fromkeys(f"`{row.command}`" for row in rows)
    measured = dict.fromkeys(f"`{row.evaluation}`" for row in rows if row.evaluation)
    warning = "" if len(commands) == 1 and len(measured) <= 1 else "**These runs cannot be compared.** "
    options = list(dict.fromkeys(option for row in rows for option, _ in row.run.group))
    names = dict.fromkeys(name for row in rows for name in row.metrics if not name.endswith(("_std", "_sd")))
    cells = []
    for group, of_group in groups(rows).items():
        pair, first = best(of_group, metric), Counter(row.status for row in first_seed(of_group))
        at_best = [row.metrics for row in of_group if row.run.pair == pair]
        known = sum(metric in each for each in at_best)
        of_setting = [dict(group).get(option, "") for option in options]
        of_metrics = [shown(each[name] for each in at_best if name in each) for name in names]
        seeds = f"{known}" if known == len(at_best) else f"{known} of {len(at_best)}"
        diverged = f"{first['diverged']} of {first['diverged'] + first['finished']}"
        cells.append([*of_setting, " / ".join(pair or "-"), *of_metrics, seeds, diverged])
    head = [*options, "lr of D, G", *(HEADINGS.get(name, name) for name in names), "seeds", "diverged"]
    return f"""# Sweep over {meaning}

{len(rows)} runs: {counts}. {warning}Trained by {", by ".join(commands)}; measured in {", in ".join(measured) or "-"}.

Each setting is shown at the pair of learning rates with the lowest {HEADINGS[metric]} of its first seed: mean ±
standard deviation over the seeds that finished at that pair. The last column counts the pairs that diverged with the
first seed, among those that ended.

{markdown(head, cells)}"""


def draw(figure: Figure, rows: Sequence[Row], axis: Sequence[str], metric: str, limit: float | None) -> None:
    """Draw means over seeds like Figure 3 of the paper: a bar for each pair of learning rates, grouped along an axis.

    Options that are not along the axis get a panel for each value. The vertical axis ends at the limit.
    """
    from matplotlib import colormaps
    from matplotlib.patches import Patch

    panels: dict[Group, dict[str, list[Row]]] = {}
    for row in rows:
        title = tuple(item for item in row.run.group if item[0] not in axis)
        label = " ".join(value for option, value in row.run.group if option in axis)
        panels.setdefault(title, {}).setdefault(label, []).append(row)
    pairs = sorted({row.run.pair for row in rows}, key=lambda pair: (float(pair[0]), float(pair[1])))
    of_d, of_g = (sorted({pair[side] for pair in pairs}, key=float) for side in (0, 1))
    maps = {pair: colormaps[MAPS[of_d.index(pair[0]) % len(MAPS)]] for pair in pairs}
    colours = {pair: maps[pair](0.4 + 0.5 * (of_g.index(pair[1]) + 1) / len(of_g)) for pair in pairs}
    all_axes = figure.subplots(len(panels), 1, sharey=True, squeeze=False)[:, 0]
    width, drawn = 0.86 / len(pairs), set[str]()
    for axes, (title, by_label) in zip(all_axes, panels.items(), strict=True):
        for (place, of_label), (number, pair) in itertools.product(enumerate(by_label.values()), enumerate(pairs)):
            found = [row for row in of_label if row.run.pair == pair]
            x = place + (number - (len(pairs) - 1) / 2) * width
            height, deviation = spread(row.metrics[metric] for row in found if metric in row.metrics) or (0.0, None)
            axes.bar(x, height, width * 0.92, color=colours[pair], yerr=deviation)
            above = limit is not None and height > limit
            sign = "x" if any(row.status == "diverged" for row in found) else "^" if above else "" if height else "."
            if found and sign:
                at, colour = 0.97 if sign == "^" else 0.03, "crimson" if sign == "x" else "black"
                axes.plot(x, at, sign, color=colour, markersize=5, transform=axes.get_xaxis_transform())
                drawn.add(SIGNS[sign])
        axes.set(xlim=(-0.5, len(by_label) - 0.5), ylabel=HEADINGS.get(metric, metric), axisbelow=True)
        axes.set_xticks(range(len(by_label)), by_label)
        axes.set_title(", ".join(f"{option} = {value}" for option, value in title), fontsize=10)
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[0].set_ylim(0, limit)
    all_axes[-1].set_xlabel("; ".join([" ".join(axis), *sorted(drawn)]))
    handles = [Patch(facecolor=colours[pair], label=" / ".join(pair)) for pair in pairs]
    figure.legend(handles=handles, loc="outside right center", fontsize=8, title="lr of D / G", frameon=False)
