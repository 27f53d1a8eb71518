"""The settings of Arbel et al.: the paper's, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from arbel2018.presets import DATASETS, METHODS, PRESETS, Arbel2018, resolved
from training.settings import read, saved

PAPER = {name: preset for name, preset in PRESETS.items() if preset.dataset in ("cifar10", "celeba", "imagenet")}


def make(**settings: Any) -> Arbel2018:
    return Arbel2018(out=Path(), **settings)


def test_each_method_has_a_preset_for_each_data_set():
    assert list(PRESETS) == [f"{dataset}-{method}" for dataset in DATASETS for method in METHODS]
    assert len(PAPER) == 24
    for name, preset in PRESETS.items():
        assert preset.out == Path("runs") / f"smmd-{name}"
        assert name.startswith(f"{preset.dataset}-")


@pytest.mark.parametrize("name", PAPER)
def test_presets_have_the_settings_of_section_4(name: str):
    preset = resolved(PAPER[name])
    assert (preset.width, preset.noise, preset.channels, preset.sigma) == (64, 128, 3, 1.0)
    assert (preset.iterations, preset.batch_size, preset.ema_decay) == (150_000, 64, 0)
    assert (preset.critic_steps, preset.clip_norm) == (5, 1)
    assert (preset.kid_every, preset.kid_memory, preset.kid_failures, preset.lr_factor) == (2000, 10, 3, 0.8)
    assert (preset.kid_images, preset.lr_least) == (2048, 1e-6)
    assert preset.lr_discriminator == preset.lr_generator == (2e-4 if preset.dataset == "imagenet" else 1e-4)
    networks = {"cifar10": ("sngan", 32), "celeba": ("dcgan5", 160), "imagenet": ("resnet", 64)}
    assert (preset.family, preset.size) == networks[preset.dataset]
    assert preset.sobolev_rho == 2e-8


@pytest.mark.parametrize("dataset", ["cifar10", "celeba", "imagenet"])
def test_methods_are_those_of_section_4(dataset: str):
    found = {}
    for method in METHODS:
        preset = resolved(PRESETS[f"{dataset}-{method}"])
        gamma = preset.gamma if preset.normalisation != "none" else None
        penalties = (preset.gradient_penalty, preset.l2_penalty)
        found[method] = (preset.loss, preset.normalisation, gamma, preset.scale_weight, *penalties)
    assert found == {
        "smmd": ("smmd", "none", None, 0.1 if dataset == "celeba" else 10, 0, 0),
        "sn-smmd": ("smmd", "matrix", "learned", 10, 0, 0),
        "swgan": ("swgan", "none", None, 10, 0, 0),
        "sn-swgan": ("swgan", "matrix", "learned", 10, 0, 0),
        "mmd-gan-gp-l2": ("mmd", "none", None, None, 1, 1),
        "wgan-gp": ("wgan", "none", None, None, 10, 0),
        "sn-gan": ("gan", "matrix", "fixed", None, 0, 0),
        "sobolev-gan": ("sobolev", "none", None, None, 0, 0),
    }


@pytest.mark.parametrize(
    ("settings", "gamma"),
    [
        ({"loss": "mmd"}, "fixed"),
        ({"loss": "mmd", "l2_penalty": 1.0}, "fixed"),
        ({"loss": "wgan"}, "fixed"),
        ({"loss": "wgan", "gradient_penalty": 10.0}, "learned"),
        ({"loss": "mmd", "gradient_penalty": 1.0}, "learned"),
        ({"loss": "sobolev"}, "learned"),
        ({"loss": "gan", "gamma": "learned"}, "learned"),
    ],
)
def test_gamma_is_fixed_where_nothing_else_bounds_the_gradient(settings: dict[str, Any], gamma: str):
    assert resolved(make(**settings)).gamma == gamma


def test_presets_resolve_once_and_are_read_from_a_command_line():
    for preset in PRESETS.values():
        assert resolved(resolved(preset)) == resolved(preset)
        assert resolved(Arbel2018(out=preset.out, **saved(preset) | {"data_root": Path("data")})) == resolved(preset)
    words = ["celeba-smmd", "--width", "8", "--dataset", "fake", "--kid-features", "inception"]
    expected = replace(PRESETS["celeba-smmd"], width=8, dataset="fake", kid_features="inception")
    assert read(PRESETS, "Train.", words) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": 0.0}, "sigma: expected a number > 0, got 0.0"),
        ({"lr_factor": 1.0}, "lr_factor: expected a number > 0 and < 1, got 1.0"),
        ({"clip_norm": -1.0}, "clip_norm: expected a number >= 0, got -1.0"),
        ({"scale_weight": float("inf")}, "scale_weight: expected a number > 0, got inf"),
        ({"size": 64}, "dataset: cifar10 has images of size 32 with 3 channels, but size and channels are 64 and 3"),
        ({"dataset": "fake", "size": 36}, "size: expected a multiple of 8 for sngan, got 36"),
        ({"gradient_penalty": 1.0}, "gradient_penalty: expected 0 for smmd, got 1.0"),
        ({"loss": "gan", "l2_penalty": 1.0}, "l2_penalty: expected 0 for gan, got 1.0"),
        ({"loss": "mmd", "scale_weight": 1.0}, "scale_weight: expected none for mmd, got 1.0"),
        ({"kid_memory": 0}, "kid_memory: expected a number >= 1, got 0"),
        ({"kid_failures": 11}, "kid_failures: expected at most kid_memory, 10; got 11"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        make(**settings)
