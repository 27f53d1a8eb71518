"""The singular values of critics: the values that are logged, and that computing them changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from arbel2018 import networks
from arbel2018.networks import singular_values
from arbel2018.presets import Arbel2018
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
