"""The picture of a sweep in the manner of the paper's Figure 3: a bar for each pair of learning rates, in groups."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dcgan.atomic import replacing

from sweeps.folders import Status
from sweeps.grids import Study
from sweeps.plan import Group, Pair
from sweeps.results import Row, spread
from sweeps.summary import heading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELS = {"lambda": "λ", "total-scale": "$C^K$", "scores": "scores per image", "normalisation": ""}
"""What options are called in the picture, unless as they are."""

VALUES = {("normalisation", "pico"): "", ("normalisation", "matrix"): "PIM"}
"""What values are called along the horizontal axis, unless as they are."""

MAPS = ("Blues", "Oranges", "Greens", "Purples", "Reds", "Greys")
"""Colours by the learning rate of D; their shade is that of G."""


class Mark(NamedTuple):
    """A sign in the place of a bar, or on it."""

    label: str
    shape: str
    colour: str
    height: float
    """In parts of the vertical axis."""


DIVERGED = Mark("diverged", "x", "crimson", 0.035)
OPEN = Mark("no result yet", ".", "silver", 0.025)
ABOVE = Mark("above {limit:g}", "^", "black", 0.965)


def save(path: Path, study: Study, rows: Sequence[Row], metric: str, limit: float | None) -> None:
    """Draw a sweep, and save it as a PNG of few colours.

    Args:
        path: where to.
        study: what it is a sweep of.
        rows: its runs.
        metric: the height of the bars.
        limit: where the vertical axis ends; bars that go on are marked. None shows all.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, max(3.9, 0.6 + 2.4 * len(_panels(study, rows)))), dpi=100, layout="constrained")
    draw(figure, study, rows, metric, limit)
    write(path, figure)


def write(path: Path, figure: Figure) -> None:
    """Save a figure as a PNG of few colours, without a word of when or by what it was made."""
    from PIL import Image

    with BytesIO() as buffer, replacing(path) as partial:
        figure.savefig(buffer)
        picture = Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        picture.save(partial, format="png", optimize=True)


def draw(figure: Figure, study: Study, rows: Sequence[Row], metric: str, limit: float | None) -> None:
    """Draw the panels of a sweep below each other, with one legend."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    panels, colours = _panels(study, rows), _colours(rows)
    all_axes = figure.subplots(len(panels), 1, sharey=True, squeeze=False)[:, 0]
    marks = set()
    for axes, (title, of_panel) in zip(all_axes, panels.items(), strict=True):
        marks |= _panel(axes, study, of_panel, colours, metric, limit)
        axes.set_title(", ".join(f"{LABELS.get(option) or option} = {value}" for option, value in title), fontsize=10)
        axes.set_ylabel(heading(metric))
    all_axes[0].set_ylim(0, limit)
    all_axes[-1].set_xlabel(" ".join(LABELS.get(option, option) for option in study.axis).strip())
    handles: list[Patch | Line2D] = [
        Patch(facecolor=colour, label=f"{pair[0]} / {pair[1]}") for pair, colour in colours.items()
    ]
    handles += [
        Line2D([], [], linestyle="", marker=mark.shape, color=mark.colour, label=mark.label.format(limit=limit))
        for mark in (OPEN, DIVERGED, ABOVE)
        if mark in marks
    ]
    figure.legend(handles=handles, loc="outside right center", fontsize=8, title="lr of D / G", frameon=False)


def _panel(
    axes: Axes, study: Study, rows: Sequence[Row], colours: dict[Pair, str], metric: str, limit: float | None
) -> set[Mark]:
    """Draw the bars of a panel, and return the marks among them."""
    width = 0.86 / len(colours)
    found: dict[str, dict[Pair, list[Row]]] = {}
    for row in rows:
        found.setdefault(_label(study, row), {}).setdefault(row.run.pair, []).append(row)
    marks = set()
    for place, by_pair in enumerate(found.values()):
        for number, (pair, colour) in enumerate(colours.items()):
            of_bar = by_pair.get(pair, [])
            x = place + (number - (len(colours) - 1) / 2) * width
            height = spread(row.metrics[metric] for row in of_bar if metric in row.metrics)
            if height is not None:
                axes.bar(x, height.mean, width * 0.92, color=colour, yerr=height.deviation, error_kw={"linewidth": 0.8})
            mark = _mark(of_bar, None if height is None else height.mean, limit)
            if mark is not None:
                (drawn,) = axes.plot(x, mark.height, mark.shape, color=mark.colour, markersize=min(6, 90 * width))
                drawn.set_transform(axes.get_xaxis_transform())
                marks.add(mark)
            if mark is DIVERGED:
                axes.axvspan(x - width / 2, x + width / 2, color=DIVERGED.colour, alpha=0.13, linewidth=0, zorder=0)
    axes.set_xticks(range(len(found)), [_tick(label, by_pair) for label, by_pair in found.items()])
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.5, len(found) - 0.5)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return marks


def _mark(rows: Sequence[Row], height: float | None, limit: float | None) -> Mark | None:
    if _diverged(rows):
        return DIVERGED
    if height is None:
        return OPEN if rows else None
    return ABOVE if limit is not None and height > limit else None


def _diverged(rows: Sequence[Row]) -> bool:
    """Return whether a pair of learning rates diverged with any seed."""
    return any(row.status is Status.DIVERGED for row in rows)


def _tick(label: str, by_pair: dict[Pair, list[Row]]) -> str:
    count = sum(map(_diverged, by_pair.values()))
    return f"{label}\n{count} diverged" if count else label


def _panels(study: Study, rows: Sequence[Row]) -> dict[Group, list[Row]]:
    """Return the rows of each panel, which have all settings in common but those along the axis."""
    panels: dict[Group, list[Row]] = {}
    for row in rows:
        title = tuple(item for item in row.run.group if item[0] not in study.axis)
        panels.setdefault(title, []).append(row)
    return panels


def _label(study: Study, row: Row) -> str:
    settings = row.run.settings
    values = [VALUES.get((option, settings[option]), settings[option]) for option in study.axis if option in settings]
    return " ".join(value for value in values if value)


def _colours(rows: Sequence[Row]) -> dict[Pair, str]:
    """Return a colour for each pair of learning rates, in their order."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    pairs = sorted({row.run.pair for row in rows}, key=lambda pair: (float(pair[0]), float(pair[1])))
    of_d, of_g = (sorted({pair[side] for pair in pairs}, key=float) for side in (0, 1))
    shades = {rate: 0.4 + 0.5 * (number + 1) / len(of_g) for number, rate in enumerate(of_g)}
    return {pair: to_hex(colormaps[MAPS[of_d.index(pair[0]) % len(MAPS)]](shades[pair[1]])) for pair in pairs}
