"""The pictures of the study on Fashion-MNIST, drawn from its raw logs, and the parts that both studies share."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from studies import protocol, tables
from studies.logs import Grid
from studies.protocol import NORMS, SCALES, SCORES, normed, setting
from sweeps.runs import Group, Run
from sweeps.tables import draw, spread
from training import need
from training.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

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
"""Dashes and colours of the losses; people with colour blindness can tell the colours apart."""
MEANS = {
    "k_rr": ("real with real", "#0072b2"),
    "k_rf": ("real with generated", "#7f7f7f"),
    "k_ff": ("generated with generated", "#d55e00"),
}
"""Numbers of the training log, with their labels and colours."""
COLUMNS, SIDE = 12, 32 + 2 * 2
"""Number of images of each loss, and pixels of an image on a sheet of samples with its border."""

Pictures = Mapping[str, tuple[Callable[..., None], tuple[float, float]]]
"""Functions that draw the logs on a figure, with width and height in inches."""


def plot(axes: Axes, runs: Iterable[Mapping[float, float]], label: str, colour: str, dashes: str = "-") -> None:
    """Draw the mean over runs, and a band from the lowest value to the highest."""
    found: dict[float, list[float]] = {}
    for place, value in sorted(item for run in runs for item in run.items()):
        found.setdefault(place, []).append(value)
    if found:
        lowest, means, highest = ([of(each) for each in found.values()] for of in (min, statistics.fmean, max))
        axes.plot([*found], means, dashes, color=colour, label=label)
        axes.fill_between([*found], lowest, highest, color=colour, alpha=0.15, linewidth=0)


def save(pictures: Pictures, raw: object, to: Path, prefix: str) -> None:
    """Save pictures in a folder, as PNGs of few colours without metadata."""
    need("matplotlib")
    from matplotlib.figure import Figure
    from PIL import Image

    for name, (picture, size) in pictures.items():
        figure, buffer = Figure(figsize=size, dpi=100, layout="constrained"), BytesIO()
        picture(figure, raw)
        figure.savefig(buffer)
        reduced = Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        with replacing(to / f"{prefix}-{name}.png") as partial:
            reduced.save(partial, format="png", optimize=True)


def tidy(*all_axes: Axes, which: Literal["major", "both"] = "major") -> None:
    """Show the grid, and hide the frame above and to the right."""
    for axes in all_axes:
        axes.grid(which=which, alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)


def plain(*logarithmic: Axis) -> None:
    """Label logarithmic axes at 1, 2 and 5 times powers of ten, by plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    for axis in logarithmic:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_formatter(NullFormatter())


def curves(figure: Figure, raw: Grid) -> None:
    """Draw the FID of each loss at its best pair of learning rates, against iterations and against time."""
    costs = tables.cost(raw)
    by_iteration, by_time = figure.subplots(1, 2, sharey=True)
    for loss, (colour, dashes) in STYLES.items():
        for axes, unit in ((by_iteration, 1.0), (by_time, costs[setting(loss)]["milliseconds"] / 1000)):
            runs = [each.over_time("fid") for each in raw.over_seeds(setting(loss))]
            places = [{unit * iteration: fid for iteration, fid in run.items()} for run in runs]
            plot(axes, places, loss, colour, dashes)
    by_iteration.set(xlabel="iterations", ylabel="FID", yscale="log")
    plain(by_iteration.yaxis)
    by_time.set(xlabel="CPU seconds")
    tidy(by_iteration, by_time, which="both")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=9)


def kernel_means(figure: Figure, raw: Grid) -> None:
    """Draw the mean kernel values of pairs of scores during training, with a panel for each loss that has a kernel."""
    panels = figure.subplots(2, 3, sharex=True)
    for loss, axes in zip(protocol.LOSSES[2:], panels.flat, strict=True):
        found = raw.over_seeds(setting(loss))
        for name, (label, colour) in MEANS.items():
            runs = [{line["iteration"]: line[name] for line in each.training} for each in found]
            plot(axes, runs, label, colour)
        axes.set_title(loss, fontsize=10)
        axes.set_ylim(bottom=0)
        if axes in panels[1]:
            axes.set_xlabel("iterations")
        if axes in panels[:, 0]:
            axes.set_ylabel("mean kernel value")
    tidy(*panels.flat)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)


def lambdas(figure: Figure, raw: Grid) -> None:
    """Draw a bar for each lambda and pair of learning rates with both kernels, as in Figure 3 of the paper."""
    results = []
    for (kernel, lambda_), found in tables.repulsions(raw).items():
        for each in found:
            run = Run((("kernel", kernel), ("lambda", lambda_)), each.run.pair, 0)
            results.append(each._replace(record={**each.record, "settings": run.settings}))
    draw(figure, results, ("lambda",), "fid", protocol.COLLAPSED)


def samples(figure: Figure, raw: Grid) -> None:
    """Draw a row of samples of each loss at its best pair with the first seed."""
    pairs = {loss: raw.best_pair(setting(loss)) or protocol.PAIRS[0] for loss in protocol.LOSSES}
    sheets = {loss: raw.sheet(Run(setting(loss), pair, protocol.SEEDS[0])) for loss, pair in pairs.items()}
    draw_rows(figure, sheets, COLUMNS)


def draw_rows(figure: Figure, sheets: Mapping[str, Path], columns: int, font: float | None = None) -> Axes:
    """Draw the first images of each sheet as a row with its label; the row of a missing sheet is white."""
    import numpy as np
    from PIL import Image

    rows = np.full((len(sheets), SIDE, columns * SIDE), 255, np.uint8)
    for row, path in zip(rows, sheets.values(), strict=True):
        if path.exists():
            sheet = np.asarray(Image.open(path).convert("L"))
            row[:] = np.concatenate(np.split(sheet, len(sheet) // SIDE), axis=1)[:, : columns * SIDE]
    axes = figure.subplots()
    axes.imshow(np.concatenate(rows), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks(SIDE * (np.arange(len(rows)) + 0.5), list(sheets), fontsize=font)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return axes


def choices(figure: Figure, raw: Grid) -> None:
    """Draw the FID of seeds that did not diverge, by the number of scores, and by the constant C with both norms."""

    def line(axes: Axes, settings: Mapping[float, Group], label: str, colour: str) -> None:
        fids = [[each.metrics["fid"] for each in raw.over_seeds(of) if each.metrics] for of in settings.values()]
        means, deviations = zip(*(spread(each) or (math.nan, None) for each in fids), strict=True)
        more: dict[str, Any] = {"marker": "o", "capsize": 3, "color": colour, "label": label}
        axes.errorbar(list(settings), means, [each or 0.0 for each in deviations], **more)

    by_scores, by_scale = figure.subplots(1, 2)
    line(by_scores, {number: setting("mmd-rep", scores=number) for number in SCORES}, "mmd-rep", "#e69f00")
    for name, colour in zip(NORMS, ("#e69f00", "#0072b2"), strict=True):
        line(by_scale, {scale: normed(name, scale) for scale in SCALES}, name, colour)
    by_scores.set_xscale("log", base=2)
    by_scores.set_xticks(SCORES, map(str, SCORES))
    by_scores.set(xlabel="scores per image", ylabel="FID", ylim=(0, None))
    # A constant that is too large raises the FID by far more than the other choices.
    by_scale.set(xlabel="C", ylabel="FID", yscale="log")
    by_scale.set_xticks(SCALES, [f"{scale:.3g}" for scale in SCALES])
    by_scale.set_yticks([3, 5, 10, 20, 40, 80], ["3", "5", "10", "20", "40", "80"])
    by_scale.minorticks_off()
    tidy(by_scores, by_scale)
    by_scale.legend(frameon=False)


PICTURES: Pictures = {
    "curves": (curves, (10.0, 4.2)),
    "kernel-means": (kernel_means, (10.0, 5.2)),
    "lambda": (lambdas, (10.0, 5.4)),
    "samples": (samples, (9.6, 5.2)),
    "choices": (choices, (10.0, 3.6)),
}
