"""A drawing of the singular values of a critic's layers in the course of a training (Fig. 2b and 7)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure


def draw(log: Sequence[Mapping[str, Any]], key: str = "singular_values") -> Figure:
    """Draw the singular values of each layer, a curve for each line of a log that has them.

    Args:
        log: lines with the `iteration` and, under `key`, what :func:`smmd.singular_values.singular_values` returned.
        key: where they are.

    Returns:
        A figure with one plot for each layer; values over their rank, which is counted from 0 to 1.

    Raises:
        ValueError: if no line has singular values.
    """
    lines = [line for line in log if key in line]
    if not lines:
        raise ValueError(f"log: expected lines with {key!r}, got none in {len(log)}")
    layers = list(lines[0][key])
    columns = min(4, len(layers))
    rows = math.ceil(len(layers) / columns)
    figure = Figure(figsize=(3 * columns, 2.6 * rows), dpi=100, layout="constrained")
    plots = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes, layer in zip(plots, layers, strict=False):
        for line in lines:
            _curve(axes, line[key][layer], f"{line['iteration']:,}")
        axes.set_title(f"layer {layer}", fontsize=9)
        axes.set(xlim=(0, 1), yscale="log")
    for axes in plots[len(layers) :]:
        axes.remove()
    plots[0].legend(title="iteration", fontsize=7)
    figure.supxlabel("rank, as a share")
    figure.supylabel("singular value")
    return figure


def _curve(axes: Axes, values: Sequence[float], label: str) -> None:
    count = len(values)
    # A single value would be no line; a value of zero has no place on the axis, and is left out.
    ranks = [(i + 0.5) / count for i in range(count)]
    axes.plot(ranks, [value or math.nan for value in values], label=label, marker="." if count == 1 else None)
