"""The pictures of the study of trainings without a discriminator, drawn from its raw logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from studies import one_step as plan
from studies.logs import Raw
from studies.one_step import Trial
from studies.one_step_tables import QUARTERS, REFERENCES, over_seeds
from studies.pictures import Pictures, draw_rows, plain, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "exact": "#000000",
    "nystroem-1024": "#0072b2",
    "nystroem-256": "#56b4e9",
    "fourier": "#009e73",
    "resampled": "#d55e00",
    "drift": "#cc79a7",
}
"""Colours that people with colour blindness can tell apart."""
COLUMNS = 16
"""Number of images of each arm."""


def curves(figure: Figure, raw: Raw) -> None:
    """Draw the Frechet distance of all seeds against CPU seconds and against steps, for both widths of the kernel."""
    panels = figure.subplots(2, 2, sharey=True, squeeze=False)
    for row, (suffix, title, names) in zip(
        panels, (("", "median", REFERENCES), ("-quarter", "a quarter of it", QUARTERS)), strict=True
    ):
        for axes, unit in zip(row, ("cpu_seconds", "iteration"), strict=True):
            for name in names:
                lines(axes, raw, name + suffix, unit, colour=COLOURS[name], label=REFERENCES[name])
            axes.set(xscale="log", yscale="log", xlabel="CPU seconds" if unit == "cpu_seconds" else "steps")
            plain(axes.xaxis, axes.yaxis)
        row[0].set(ylabel="FD")
        row[0].set_title(f"sigma: {title}", fontsize=10)
    tidy(*panels.flat)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=9)


def lines(axes: Axes, raw: Raw, arm: str, unit: str, *, colour: str, label: str) -> None:
    """Draw a line for each seed of an arm."""
    for number, found in enumerate(over_seeds(raw, arm)):
        ordered = [line for _, line in sorted(found.evaluations.items())]
        places, fids = [line[unit] for line in ordered], [line["metrics"]["fid"] for line in ordered]
        axes.plot(places, fids, marker=".", linewidth=1, color=colour, alpha=0.8, label="" if number else label)


def samples(figure: Figure, raw: Raw) -> None:
    """Draw a row of samples of each arm with the first seed."""
    sheets = {arm: raw.sheet(Trial(arm, plan.SEEDS[0])) for arm in plan.ARMS}
    draw_rows(figure, sheets, COLUMNS, font=8).set_anchor("E")  # long names of arms need the room on the left


PICTURES: Pictures = {
    "curves": (curves, (10.0, 7.0)),
    "samples": (samples, (9.0, 10.6)),
}
