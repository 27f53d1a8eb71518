"""Fig. 2b: the drawing of the singular values in a log; `test_arbel2018_training.py` draws those of a run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import training
from arbel2018.figures.fig2b_singular_values import draw, main
from trained import refusal


def test_the_drawing_has_a_plot_for_each_layer_and_a_curve_for_each_line():
    log = [
        {"iteration": 1000, "singular_values": {"0": [2.0, 1.0], "2": [3.0, 0.0, 0.0], "4": [1.0]}},
        {"iteration": 90_000, "singular_values": {"0": [5.0, 0.1], "2": [3.0, 2.0, 1.0], "4": [2.0]}},
    ]
    figure = draw(log)
    plots = figure.get_axes()
    assert [axes.get_title() for axes in plots] == ["layer 0", "layer 2", "layer 4"]
    assert all(axes.get_yscale() == "log" for axes in plots)
    for axes, layer in zip(plots, ("0", "2", "4"), strict=True):
        for line, curve in zip(log, axes.get_lines(), strict=True):
            values = line["singular_values"][layer]
            np.testing.assert_array_equal(curve.get_ydata(), [value or math.nan for value in values])
            np.testing.assert_allclose(curve.get_xdata(), (np.arange(len(values)) + 0.5) / len(values))
    assert [text.get_text() for text in plots[0].get_legend().get_texts()] == ["1,000", "90,000"]
    figure.canvas.draw()


def test_a_drawing_of_many_layers_has_rows_without_empty_plots():
    for count in (8, 6):
        log = [{"iteration": 1, "singular_values": {str(layer): [2.0, 1.0] for layer in range(count)}}]
        assert len(draw(log).get_axes()) == count


def test_a_missing_matplotlib_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    line = {"iteration": 1, "singular_values": {"0": [2.0, 1.0]}}
    (tmp_path / "singular_values.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    monkeypatch.setattr(training, "find_spec", lambda name: None)
    assert refusal(capsys, lambda: main(tmp_path)).startswith("Not installed: matplotlib. ")
    assert not (tmp_path / "singular_values.png").exists()
