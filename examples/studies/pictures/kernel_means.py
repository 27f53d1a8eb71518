"""The mean kernel values of real, of mixed and of generated pairs of scores over the training, loss by loss."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dcgan.losses import MMD, SCALED

from studies import protocol, results
from studies.pictures.series import plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = (10.0, 5.2)

MEANS = {
    "k_rr": ("real with real", "#0072b2"),
    "k_rf": ("real with generated", "#7f7f7f"),
    "k_ff": ("generated with generated", "#d55e00"),
}
"""The numbers of the log, with their labels and colours."""

LOSSES = (*MMD, *SCALED)


def draw(figure: Figure, raw: Path) -> None:
    """Draw a panel for each loss that has a kernel."""
    panels = figure.subplots(2, 3, sharex=True)
    for loss, axes in zip(LOSSES, panels.flat, strict=True):
        found = results.over_seeds(raw, protocol.setting(loss))
        for name, (label, colour) in MEANS.items():
            runs = [{line["iteration"]: line[name] for line in each.training} for each in found]
            plot(axes, runs, label=label, colour=colour)
        axes.set_title(loss, fontsize=10)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[1]:
        axes.set_xlabel("iterations")
    for axes in panels[:, 0]:
        axes.set_ylabel("mean kernel value")
    # Any panel that has lines has all of them.
    legends = [axes.get_legend_handles_labels() for axes in panels.flat]
    figure.legend(*max(legends, key=lambda legend: len(legend[1])), loc="outside lower center", ncols=3, frameon=False)
