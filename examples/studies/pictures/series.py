"""Lines over seeds: the mean, and a band from the lowest to the highest value."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES = {
    "non-saturating": ("#7f7f7f", "-"),
    "hinge": ("#000000", "-"),
    "mmd-rbf": ("#56b4e9", "--"),
    "mmd-rq": ("#009e73", "--"),
    "mmd-rbf-b": ("#0072b2", "--"),
    "mmd-rep": ("#e69f00", "-"),
    "mmd-rep-b": ("#d55e00", "-"),
    "smmd": ("#cc79a7", "-."),
}
"""Colours, which people see apart who do not see all, and dashes of the losses."""

Series = Mapping[int, float]
"""Numbers of a run by iteration."""


def joined(runs: Iterable[Series]) -> dict[int, list[float]]:
    """Return the numbers of all runs by iteration, those of runs that ended early as far as they go."""
    found: dict[int, list[float]] = {}
    for run in runs:
        for iteration, value in run.items():
            found.setdefault(iteration, []).append(value)
    return dict(sorted(found.items()))


def plot(axes: Axes, runs: Sequence[Series], *, label: str, colour: str, dashes: str = "-", unit: float = 1.0) -> None:
    """Draw the line of some seeds.

    Args:
        axes: where to.
        runs: the numbers of each seed; without any, nothing is drawn.
        label: for the legend.
        colour: of line and band.
        dashes: of the line.
        unit: how far an iteration is along the horizontal axis.
    """
    found = joined(runs)
    if found:
        places = [unit * iteration for iteration in found]
        axes.plot(places, list(map(statistics.fmean, found.values())), dashes, color=colour, label=label)
        lowest, highest = (list(map(of, found.values())) for of in (min, max))
        axes.fill_between(places, lowest, highest, color=colour, alpha=0.15, linewidth=0)
