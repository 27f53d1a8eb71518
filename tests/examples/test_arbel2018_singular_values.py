"""The singular values of critics: what is logged, that nothing moves by it, and the drawing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from arbel2018 import networks
from arbel2018.presets import Arbel2018
from arbel2018.singular_values import draw, singular_values, stable_rank
from torch import nn


def make_critic(**settings: Any) -> nn.Sequential:
    return networks.make_critic(Arbel2018(out=Path(), dataset="fake", size=8, width=2, **settings))


@pytest.mark.parametrize("normalisation", ["none", "matrix", "conv"])
def test_singular_values_are_those_of_the_weights_in_use(normalisation: str):
    critic = make_critic(normalisation=normalisation)
    before = {name: value.clone() for name, value in critic.state_dict().items() if isinstance(value, torch.Tensor)}
    spectra = singular_values(critic)
    layers = {name: layer for name, layer in critic.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    assert list(spectra) == list(layers)
    for name, layer in layers.items():
        outputs = len(layer.weight)
        matrix = layer.weight.detach().numpy().reshape(outputs, -1)
        np.testing.assert_allclose(spectra[name], np.linalg.svd(matrix, compute_uv=False), rtol=1e-4)
    assert json.loads(json.dumps(spectra, allow_nan=False)) == spectra
    after = critic.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert critic.training


def test_the_stable_rank_has_its_closed_form():
    assert stable_rank([4.0, 2.0, 1.0, 0.5]) == 1 + 1 / 4 + 1 / 16 + 1 / 64
    assert stable_rank([0.0, 0.0]) == 0


# The drawing


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
    spectra = singular_values(make_critic())
    for count in (8, 6):
        log = [{"iteration": 1, "singular_values": dict(list(spectra.items())[:count])}]
        assert len(draw(log).get_axes()) == count
