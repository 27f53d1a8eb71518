"""The configurations of Arbel et al.: the paper's settings, what is refused, and JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from dcgan import fields
from smmd.configuration import Configuration, resolved
from smmd.presets import DATASETS, METHODS, PRESETS, rehearsal


def test_each_method_has_a_preset_for_each_data_set():
    assert len(PRESETS) == len(METHODS) * len(DATASETS) == 24
    for name, preset in PRESETS.items():
        assert name.startswith(f"{preset.dataset}-")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_settings_of_section_4(name: str):
    preset = resolved(PRESETS[name])
    assert (preset.width, preset.noise, preset.scores, preset.channels, preset.sigma) == (64, 128, 1, 3, 1.0)
    assert (preset.iterations, preset.batch_size) == (150_000, 64)
    assert (preset.critic_steps, preset.critic_steps_at_start) == (5, 5)
    assert (preset.kid_every, preset.kid_back, preset.kid_failures, preset.lr_factor) == (2000, 20_000, 3, 0.8)
    assert preset.lr_discriminator == preset.lr_generator == (2e-4 if preset.dataset == "imagenet" else 1e-4)
    networks = {"cifar10": ("sngan", 32), "celeba": ("dcgan5", 160), "imagenet": ("resnet", 64)}
    assert (preset.family, preset.size) == networks[preset.dataset]


def test_methods_are_those_of_section_4():
    rows = {
        name.removeprefix("celeba-"): (
            preset.loss,
            preset.normalisation,
            preset.gamma if preset.normalisation != "none" else None,
            preset.scale_weight,
            preset.gradient_penalty,
            preset.l2_penalty,
        )
        for name, preset in ((name, resolved(preset)) for name, preset in PRESETS.items())
        if preset.dataset == "celeba"
    }
    assert rows == {
        "smmd": ("smmd", "none", None, 0.1, 0, 0),
        "sn-smmd": ("smmd", "matrix", "learned", 10, 0, 0),
        "swgan": ("swgan", "none", None, 10, 0, 0),
        "sn-swgan": ("swgan", "matrix", "learned", 10, 0, 0),
        "mmd-gan-gp-l2": ("mmd", "none", None, None, 1, 1),
        "wgan-gp": ("wgan", "none", None, None, 10, 0),
        "sn-gan": ("gan", "matrix", "fixed", None, 0, 0),
        "sobolev-gan": ("sobolev", "none", None, None, 0, 0),
    }
    assert resolved(PRESETS["cifar10-smmd"]).scale_weight == resolved(PRESETS["imagenet-smmd"]).scale_weight == 10


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
def test_gamma_is_fixed_where_nothing_else_holds_the_gradient(settings: dict[str, Any], gamma: str):
    assert resolved(Configuration(**settings)).gamma == gamma


@pytest.mark.parametrize("name", PRESETS)
def test_presets_resolve_once_and_survive_json(name: str):
    for preset in (PRESETS[name], resolved(PRESETS[name]), rehearsal(PRESETS[name])):
        assert fields.from_settings(Configuration, json.loads(fields.to_json(preset))) == preset
    assert resolved(resolved(PRESETS[name])) == resolved(PRESETS[name])


def test_a_rehearsal_keeps_shapes_networks_and_losses():
    before, after = PRESETS["celeba-sn-swgan"], rehearsal(PRESETS["celeba-sn-swgan"])
    changed = {
        field.name for field in dataclasses.fields(before) if getattr(before, field.name) != getattr(after, field.name)
    }
    assert changed - {name for name in changed if name.endswith("_every")} == {"dataset", "batch_size", "iterations"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": "mnist"}, "dataset: expected one of cifar10, celeba, imagenet, fashion-mnist, fake; got 'mnist'"),
        ({"sigma": 0.0}, "sigma: expected a number > 0, got 0.0"),
        ({"lr_factor": 1.0}, "lr_factor: expected a number < 1, got 1.0"),
        ({"clip_norm": -1.0}, "clip_norm: expected a number >= 0, got -1.0"),
        ({"scale_weight": float("inf")}, "scale_weight: expected a finite number, got inf"),
    ],
)
def test_values_out_of_range_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        Configuration(**settings)


@pytest.mark.parametrize(("name", "value"), [("width", 1.5), ("width", True), ("loss", 1), ("sigma", "1")])
def test_values_of_the_wrong_type_are_refused(name: str, value: object):
    with pytest.raises(TypeError, match=f"{name}: expected"):
        Configuration(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 64}, "cifar10 has images of size 32 with 3 channels, but size and channels are 64 and 3"),
        ({"dataset": "fake", "size": 36}, "size: expected a multiple of 8 for sngan, got 36"),
        ({"gradient_penalty": 1.0}, "gradient_penalty: expected 0 for smmd, got 1.0"),
        ({"loss": "gan", "l2_penalty": 1.0}, "l2_penalty: expected 0 for gan, got 1.0"),
        ({"loss": "mmd", "scale_weight": 1.0}, "scale_weight: expected none for mmd, got 1.0"),
        ({"loss": "swgan", "scores": 2}, "scores: expected 1 for swgan, got 2"),
        ({"kid_back": 3000}, "kid_back: expected a multiple of kid_every, 2000; got 3000"),
    ],
)
def test_contradictions_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        resolved(Configuration(**settings))


@pytest.mark.parametrize(
    ("settings", "message"), [([], "expected the settings by name"), ({"x": 1}, "unknown settings 'x'")]
)
def test_foreign_settings_are_refused(settings: object, message: str):
    with pytest.raises(ValueError, match=message):
        fields.from_settings(Configuration, settings)


def test_changes_name_what_a_resumed_run_may_not_change():
    before = Configuration()
    assert fields.changes(before, dataclasses.replace(before, iterations=1, data_root="x", device="cpu")) == []
    assert fields.changes(before, dataclasses.replace(before, width=2)) == ["width was 64 and is 2"]
