"""Fig. 2b and 7 of Arbel et al. (2018): the singular values of a critic's layers in the course of a training.

It needs the folder of a run of an smmd script.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.append(str(Path(__file__).parents[2]))  # examples/

import training  # before tyro, so that all missing packages are named at once
import tyro
from training.errors import RefusedError
from training.files import read_lines, replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPECTRA = "singular_values"  # name of the log of singular values, and of their entry in its lines


def draw(log: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the singular values of each layer over their rank, with one curve for each line of a log."""
    from matplotlib.figure import Figure

    layers = list(log[0][SPECTRA])
    columns = min(4, len(layers))
    rows = math.ceil(len(layers) / columns)
    figure = Figure(figsize=(3 * columns, 2.6 * rows), dpi=100, layout="constrained")
    plots = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes, layer in zip(plots, layers, strict=False):
        for line in log:
            values = line[SPECTRA][layer]
            # Zero cannot be shown on a logarithmic axis, and a single value needs a marker.
            heights = [value or math.nan for value in values]
            ranks = [(i + 0.5) / len(values) for i in range(len(values))]
            axes.plot(ranks, heights, label=f"{line['iteration']:,}", marker="." if len(values) == 1 else None)
        axes.set_title(f"layer {layer}", fontsize=9)
        axes.set(xlim=(0, 1), yscale="log")
    for axes in plots[len(layers) :]:
        axes.remove()
    plots[0].legend(title="iteration", fontsize=7)
    figure.supxlabel("rank, as a share")
    figure.supylabel("singular value")
    return figure


def main(run: tyro.conf.Positional[Path], out: Path | None = None) -> None:
    """Draw the singular values of the critic's layers during a run.

    Args:
        run: folder of the run
        out: file of the picture; by default singular_values.png in the folder of the run
    """
    out = out or run / f"{SPECTRA}.png"
    try:
        log = read_lines(run / f"{SPECTRA}.jsonl", growing=True, iteration=int, **{SPECTRA: dict})
    except RefusedError as error:
        sys.exit(f"error: {error}")
    if not log:
        sys.exit(f"error: run: there are no singular values in {run}")
    training.need("matplotlib")
    with replacing(out) as partial:
        draw(log).savefig(partial, format="png")
    print(f"Picture: {out}")


if __name__ == "__main__":
    tyro.cli(main)
