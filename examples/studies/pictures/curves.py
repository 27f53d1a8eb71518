"""FID against iterations and against time, each loss at its best pair of learning rates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from studies import protocol, results, timing
from studies.pictures.series import STYLES, plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = (10.0, 4.2)


def draw(figure: Figure, raw: Path) -> None:
    """Draw both panels, that of time for the losses whose cost is known."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    costs = timing.costs(raw)
    by_iteration, by_time = figure.subplots(1, 2, sharey=True)
    for loss, (colour, dashes) in STYLES.items():
        chosen = protocol.setting(loss)
        runs = [
            {iteration: metrics["fid"] for iteration, metrics in each.evaluations.items()}
            for each in results.over_seeds(raw, chosen)
        ]
        plot(by_iteration, runs, label=loss, colour=colour, dashes=dashes)
        if chosen in costs:
            seconds = costs[chosen].milliseconds / 1000
            plot(by_time, runs, label=loss, colour=colour, dashes=dashes, unit=seconds)
    by_iteration.set(xlabel="iterations", ylabel="FID", yscale="log")
    by_iteration.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    by_iteration.yaxis.set_major_formatter(ScalarFormatter())
    by_iteration.yaxis.set_minor_formatter(NullFormatter())
    by_time.set(xlabel="CPU seconds")
    for axes in (by_iteration, by_time):
        axes.grid(which="both", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = by_iteration.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=9)
