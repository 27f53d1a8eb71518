"""FID by the number of scores, and by the constant C with both norms, over seeds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.results import spread

from studies import results
from studies.protocol import NORMS, SCALES, SCORES, Setting, setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (10.0, 3.6)

COLOURS = ("#e69f00", "#0072b2")

TICKS = (3, 5, 10, 20, 40, 80)
"""Of the axis of FID where it is logarithmic."""


def draw(figure: Figure, raw: Path) -> None:
    """Draw both panels."""
    by_scores, by_scale = figure.subplots(1, 2)
    _line(by_scores, raw, {count: setting("mmd-rep", scores=count) for count in SCORES}, "mmd-rep", COLOURS[0])
    by_scores.set_xscale("log", base=2)
    by_scores.set_xticks(SCORES, map(str, SCORES))
    by_scores.set_xlabel("scores per image")
    for (name, norm), colour in zip(NORMS.items(), COLOURS, strict=True):
        of_scale = {scale: setting("mmd-rep", normalisation=norm, scale=scale) for scale in SCALES}
        _line(by_scale, raw, of_scale, name, colour)
    by_scale.set_xticks(SCALES, [f"{scale:.3g}" for scale in SCALES])
    by_scale.set_xlabel("C")
    by_scores.set_ylim(bottom=0)
    # A constant that is too large is worse by far more than the others differ.
    by_scale.set_yscale("log")
    by_scale.set_yticks(TICKS, map(str, TICKS))
    by_scale.minorticks_off()
    for axes in (by_scores, by_scale):
        axes.set_ylabel("FID")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    by_scale.legend(frameon=False)


def _line(axes: Axes, raw: Path, settings: Mapping[float, Setting], label: str, colour: str) -> None:
    """Draw mean and standard deviation of the seeds that did not diverge."""
    found = {
        place: spread(each.fid for each in results.over_seeds(raw, chosen) if not each.diverged)
        for place, chosen in settings.items()
    }
    known = {place: of for place, of in found.items() if of is not None}
    means = [of.mean for of in known.values()]
    deviations = [of.deviation or 0.0 for of in known.values()]
    axes.errorbar(list(known), means, deviations, marker="o", capsize=3, color=colour, label=label)
