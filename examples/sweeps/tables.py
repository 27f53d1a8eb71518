"""The results of runs, means over seeds and best learning rates; the tables and the figure of a sweep."""

from __future__ import annotations

import csv
import itertools
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sweeps.runs import SWEEPS, Group, Pair, Record, Run, evaluations, record
from training.files import Line, replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEADINGS = {"fid": "FID", "kid_mean": "KID", "inception_score_mean": "IS", "ms_ssim": "MS-SSIM"}
"""Headings of metrics, by default their names."""
MAPS = ("Blues", "Oranges", "Greens", "Purples", "Reds", "Greys")
"""Colours of bars by the learning rate of D, with shades by that of G."""
SIGNS = {"x": "x: diverged", "^": "triangle: above the axis", ".": "dot: no result yet"}


class Result(NamedTuple):
    """The record of a run, its evaluations by iteration, and the lines of its training where they are needed."""

    record: Record
    evaluations: Mapping[int, Line] = {}
    training: Sequence[Line] = ()

    @property
    def run(self) -> Run:
        return Run.of(self.record["settings"])

    @property
    def diverged(self) -> bool:
        return bool(self.record["status"] == "diverged")

    @property
    def at_end(self) -> Line:
        """The evaluation after the last iteration if the run is finished."""
        known = self.evaluations if self.record["status"] == "finished" else {}
        return known.get(self.record["iteration"], {"metrics": {}, "evaluation": ""})

    @property
    def metrics(self) -> Mapping[str, float]:
        return self.at_end["metrics"]

    def over_time(self, metric: str) -> dict[int, float]:
        """Return a metric by iteration."""
        return {iteration: line["metrics"][metric] for iteration, line in self.evaluations.items()}


def results(study: str, out: Path, pattern: str) -> list[Result]:
    """Return the results of a sweep in a folder, in the order of the sweep, then of learning rates and seeds."""
    records = {folder: record(folder) for folder in out.glob("*/")}
    found = [Result(each, evaluations(of, pattern)) for of, each in records.items() if each.get("study") == study]
    listed = [str(value) for grid in SWEEPS[study].grids for values in grid.values() for value in values]

    def order(value: str) -> tuple[float, str]:
        try:
            return float(value), value
        except ValueError:
            return float(listed.index(value) if value in listed else len(listed)), value

    return sorted(found, key=lambda each: [order(value) for value in each.run.settings.values()])


def spread(values: Iterable[float]) -> tuple[float, float | None] | None:
    """Return mean and standard deviation, which is None for one value; return None without values."""
    listed = list(values)
    return (statistics.fmean(listed), statistics.stdev(listed) if len(listed) > 1 else None) if listed else None


def shown(values: Iterable[float], digits: int | None = None, unit: str = "") -> str:
    """Return mean ± standard deviation with two digits after the point, or with four if the mean is below 1."""
    mean, deviation = spread(values) or (math.nan, None)
    digits = digits if digits is not None else 2 if abs(mean) >= 1 else 4
    end = "" if deviation is None else f" ± {deviation:.{digits}f}"
    return "-" if math.isnan(mean) else f"{mean:.{digits}f}{end}{unit}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *rows))


def counted(statuses: Iterable[str]) -> str:
    return ", ".join(f"{number} {status}" for status, number in Counter(statuses).items())


def seeds(found: Sequence[Result], planned: int) -> str:
    """Return the cell of a table with the number of seeds that have a result, of missing ones and of diverged ones."""
    diverged = sum(each.diverged for each in found)
    missing = "" if len(found) == planned else f" of {planned}"
    return f"{len(found)}{missing}" + (f", {diverged} diverged" if diverged else "")


def groups(found: Iterable[Result]) -> dict[Group, list[Result]]:
    by_group: dict[Group, list[Result]] = {}
    for each in found:
        by_group.setdefault(each.run.group, []).append(each)
    return by_group


def first_seed(found: Sequence[Result]) -> list[Result]:
    """Return the results of the lowest seed among them."""
    return [each for each in found if each.run.seed == min(other.run.seed for other in found)]


def best(found: Sequence[Result], metric: str) -> Pair | None:
    """Return the best pair of a setting with its first seed, so that further seeds do not change the choice."""
    known = [each for each in first_seed(found) if metric in each.metrics]
    return min(known, key=lambda each: each.metrics[metric]).run.pair if known else None


def write_csv(path: Path, found: Sequence[Result]) -> None:
    options = dict.fromkeys(option for each in found for option in each.run.settings)
    metrics = dict.fromkeys(name for each in found for name in each.metrics)
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        names = [*options, "status", "iteration", *metrics, "evaluation"]
        writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({**each.record, **each.run.settings, **each.metrics, **each.at_end} for each in found)


def summary(meaning: str, found: Sequence[Result], metric: str) -> str:
    """Return a page of Markdown with each setting at its best pair."""
    counts = counted(each.record["status"] for each in found)
    commands = dict.fromkeys(f"`{' '.join([each.record['script'], *each.record['options']])}`" for each in found)
    measured = dict.fromkeys(f"`{each.at_end['evaluation']}`" for each in found if each.metrics)
    warning = "" if len(commands) == 1 and len(measured) <= 1 else "**These runs cannot be compared.** "
    options = list(dict.fromkeys(option for each in found for option, _ in each.run.group))
    names = dict.fromkeys(name for each in found for name in each.metrics if not name.endswith(("_std", "_sd")))
    rows = []
    for group, of_group in groups(found).items():
        pair, first = best(of_group, metric), Counter(each.record["status"] for each in first_seed(of_group))
        at_best = [each for each in of_group if each.run.pair == pair]
        known = [each for each in at_best if each.diverged or metric in each.metrics]
        of_setting = [dict(group).get(option, "") for option in options]
        means = [shown(each.metrics[name] for each in known if name in each.metrics) for name in names]
        diverged = f"{first['diverged']} of {first['diverged'] + first['finished']}"
        rows.append([*of_setting, " / ".join(pair or "-"), *means, seeds(known, len(at_best)), diverged])
    head = [*options, "lr of D, G", *(HEADINGS.get(name, name) for name in names), "seeds", "diverged"]
    return f"""# Sweep over {meaning}

{len(found)} runs: {counts}. {warning}Trained by {", by ".join(commands)}; measured in {", in ".join(measured) or "-"}.

Each setting is shown at the pair of learning rates with the lowest {HEADINGS[metric]} of its first seed: mean ±
standard deviation over the seeds that finished at that pair. The last column counts the pairs that diverged with the
first seed, among those that ended.

{markdown(head, rows)}"""


def draw(figure: Figure, found: Sequence[Result], axis: Sequence[str], metric: str, limit: float | None) -> None:
    """Draw means over seeds like Figure 3 of the paper: a bar for each pair of learning rates, grouped along an axis.

    Options that are not along the axis get a panel for each value. The vertical axis ends at the limit.
    """
    from matplotlib import colormaps
    from matplotlib.patches import Patch

    panels: dict[str, dict[str, list[Result]]] = {}
    for each in found:
        title = ", ".join(f"{option} = {value}" for option, value in each.run.group if option not in axis)
        label = " ".join(value for option, value in each.run.group if option in axis)
        panels.setdefault(title, {}).setdefault(label, []).append(each)
    pairs = sorted({each.run.pair for each in found}, key=lambda pair: (float(pair[0]), float(pair[1])))
    of_d, of_g = (sorted({pair[side] for pair in pairs}, key=float) for side in (0, 1))
    maps = {pair: colormaps[MAPS[of_d.index(pair[0]) % len(MAPS)]] for pair in pairs}
    colours = {pair: maps[pair](0.4 + 0.5 * (of_g.index(pair[1]) + 1) / len(of_g)) for pair in pairs}
    all_axes = figure.subplots(len(panels), 1, sharey=True, squeeze=False)[:, 0]
    width, drawn = 0.86 / len(pairs), set[str]()
    for axes, (title, by_label) in zip(all_axes, panels.items(), strict=True):
        for (place, of_label), (number, pair) in itertools.product(enumerate(by_label.values()), enumerate(pairs)):
            of_pair = [each for each in of_label if each.run.pair == pair]
            x = place + (number - (len(pairs) - 1) / 2) * width
            known = [each.metrics[metric] for each in of_pair if metric in each.metrics]
            height, deviation = spread(known) or (0.0, None)
            axes.bar(x, height, width * 0.92, color=colours[pair], yerr=deviation)
            above = limit is not None and height > limit
            sign = "x" if any(each.diverged for each in of_pair) else "^" if above else "" if height else "."
            if of_pair and sign:
                at, colour = 0.97 if sign == "^" else 0.03, "crimson" if sign == "x" else "black"
                axes.plot(x, at, sign, color=colour, markersize=5, transform=axes.get_xaxis_transform())
                drawn.add(SIGNS[sign])
        axes.set(xlim=(-0.5, len(by_label) - 0.5), ylabel=HEADINGS.get(metric, metric), axisbelow=True)
        axes.set_xticks(range(len(by_label)), by_label)
        axes.set_title(title, fontsize=10)
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[0].set_ylim(0, limit)
    all_axes[-1].set_xlabel("; ".join([" ".join(axis), *sorted(drawn)]))
    handles = [Patch(facecolor=colours[pair], label=" / ".join(pair)) for pair in pairs]
    figure.legend(handles=handles, loc="outside right center", fontsize=8, title="lr of D / G", frameon=False)
