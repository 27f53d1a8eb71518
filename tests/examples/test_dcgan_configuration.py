"""The configuration of the experiments: presets, the command line made of it, and JSON."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from dcgan.configuration import Configuration, resolved
from dcgan.fields import changes, from_settings, to_json
from dcgan.options import Reader
from dcgan.presets import PRESETS
from sweeps.runs import RATES


def read(*arguments: str, preset: str = "cifar10") -> Configuration:
    return Reader("Train.", PRESETS[preset], Path("runs/x")).read(arguments)[0]


def test_presets_have_the_settings_of_the_paper():
    pairs = {}
    for name in ("cifar10", "stl10", "celeba", "lsun"):
        preset = resolved(PRESETS[name])
        assert preset.dataset == name
        assert (preset.width, preset.noise, preset.scores, preset.channels) == (64, 128, 16, 3)
        assert (preset.loss, preset.lambda_, preset.updates) == ("mmd-rep-b", 1.0, "simultaneous")
        assert (preset.batch_size, preset.iterations) == (64, 100_000)
        assert (preset.normalisation, preset.scale) == ("pico", 1 / 0.55)
        pairs[name] = (preset.lr_discriminator, preset.lr_generator)
        assert set(pairs[name]) <= set(RATES)
    assert pairs == {"cifar10": (5e-4, 2e-4), "stl10": (2e-4, 2e-4), "celeba": (1e-4, 2e-4), "lsun": (2e-4, 1e-4)}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_resolve_once_and_survive_json(name: str):
    preset = resolved(PRESETS[name])
    assert resolved(preset) == preset
    for each in (preset, PRESETS[name]):
        assert from_settings(Configuration, json.loads(to_json(each))) == each
    assert None not in dataclasses.asdict(dataclasses.replace(preset, total_scale=1.0, keep_every=1)).values()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"loss": "hinge"}, {"scores": 1, "lambda_": None, "normalisation": "pico"}),
        ({"loss": "mmd-rbf"}, {"scores": 16, "lambda_": -1.0}),
        ({"loss": "mmd-rep", "lambda_": 0.5, "scores": 256}, {"scores": 256, "lambda_": 0.5}),
        ({"gradient_penalty": 0.1}, {"scores": 1, "normalisation": "none"}),
        ({"loss": "smmd"}, {"scores": 1, "lambda_": None, "normalisation": "none"}),
        ({"loss": "smmd", "normalisation": "pico"}, {"normalisation": "pico"}),
        ({"gradient_penalty": 0.1, "scores": 4, "normalisation": "matrix"}, {"scores": 4, "normalisation": "matrix"}),
        ({"total_scale": 64.0}, {"scale": 64 ** (1 / 8), "total_scale": None}),
        ({"total_scale": 64.0, "size": 64, "dataset": "lsun"}, {"scale": 64 ** (1 / 10)}),
        ({"scale": 1.5}, {"scale": 1.5}),
        ({"device": "meta"}, {"device": "meta"}),
    ],
)
def test_what_is_not_chosen_follows_from_the_rest(settings: dict[str, object], expected: dict[str, object]):
    chosen = resolved(Configuration(**settings))
    assert {name: getattr(chosen, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": "stl10"}, "stl10 has images of size 48 with 3 channels, but size and channels are 32 and 3"),
        ({"channels": 1}, "cifar10 has images of size 32 with 3 channels, but size and channels are 32 and 1"),
        ({"loss": "hinge", "lambda_": 1.0}, "lambda: expected none for 'hinge'"),
        ({"loss": "hinge", "gradient_penalty": 0.1}, "gradient_penalty: expected mmd-rep or mmd-rep-b"),
        ({"gradient_penalty": 0.1, "compile": True}, "compile: expected none beside a gradient penalty"),
        ({"loss": "smmd", "compile": True}, "compile: expected none beside a gradient penalty or smmd"),
        ({"scale": 1.5, "total_scale": 64.0}, "total_scale: expected none beside scale, got 64.0 and 1.5"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        resolved(Configuration(**settings))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"batch_size": 1}, ValueError, "batch_size: expected a number >= 2, got 1"),
        ({"lr_generator": 0.0}, ValueError, "lr_generator: expected a number > 0, got 0.0"),
        ({"ema_decay": 1.0}, ValueError, "ema_decay: expected a number < 1, got 1.0"),
        ({"lambda_": float("nan")}, ValueError, "lambda_: expected a finite number, got nan"),
        ({"size": 28}, ValueError, "size: expected one of 32, 48, 64; got 28"),
        ({"loss": "mmd"}, ValueError, "loss: expected one of minimax, .*; got 'mmd'"),
        ({"seed": 0.5}, TypeError, "seed: expected int, got 0.5"),
        ({"seed": True}, TypeError, "seed: expected int, got True"),
        ({"seed": None}, TypeError, "seed: expected int, got None"),
        ({"precision": "float8"}, ValueError, "precision: expected one of float32, bfloat16, float16; got 'float8'"),
        ({"across": "all"}, ValueError, "across: expected one of global, blocks; got 'all'"),
        ({"workers": -1}, ValueError, "workers: expected a number >= 0, got -1"),
        ({"workers": False}, TypeError, "workers: expected int, got False"),
        ({"compile": 1}, TypeError, "compile: expected bool, got 1"),
        ({"channels_last": None}, TypeError, "channels_last: expected bool, got None"),
        ({"tensorboard": "yes"}, TypeError, "tensorboard: expected bool, got 'yes'"),
        ({"dataset": 3}, TypeError, "dataset: expected str, got 3"),
    ],
)
def test_values_that_do_not_fit_are_refused(settings: dict[str, object], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        Configuration(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([1], r"expected the settings by name, got \[1\]"),
        ({"sizes": 32, "size": 32}, "unknown settings 'sizes'"),
        ({"size": 3}, "size: expected one of"),
    ],
)
def test_settings_of_something_else_are_refused(settings: object, message: str):
    with pytest.raises(ValueError, match=message):
        from_settings(Configuration, settings)


def test_every_setting_has_an_option():
    for field in dataclasses.fields(Configuration):
        name = f"--{field.name.rstrip('_').replace('_', '-')}"
        kind = type(getattr(resolved(PRESETS["cifar10"]), field.name))
        if kind is bool:
            assert [getattr(read(*given), field.name) for given in ([], [name], [f"--no-{name[2:]}"])] == [0, 1, 0]
            continue
        text = {int: "2", float: "0.25", str: "mmd-rep", type(None): "16"}[kind]
        text = str(field.metadata["choices"][-1]) if field.metadata["choices"] else text
        given = [name, text]
        # A size or a data set alone contradict the rest.
        given += {"size": ["--dataset", "fake"], "channels": ["--dataset", "fake"]}.get(field.name, [])
        found = read(*given)
        if field.name == "total_scale":
            assert found.scale == pytest.approx(16 ** (1 / 8))
        else:
            assert str(getattr(found, field.name)) == text


def test_the_command_line_starts_from_the_preset():
    assert read(preset="lsun") == resolved(PRESETS["lsun"])
    assert read("--lambda", "-0.5", "--seed", "3").lambda_ == -0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--iterations", "0"], "argument --iterations: expected a number >= 1, got 0"),
        (["--iterations", "many"], "argument --iterations: expected int, got 'many'"),
        (["--loss", "gan"], "argument --loss: expected one of minimax, "),
        (["--size", "48"], "dataset: cifar10 has images of size 32"),
        (["--learning-rate", "1"], "unrecognized arguments: --learning-rate"),
    ],
)
def test_wrong_options_are_explained(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        read(*arguments)
    assert message in capsys.readouterr().err


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="0"):
        read("--help")
    shown = capsys.readouterr().out
    assert "--lambda FLOAT" in shown
    assert "--updates simultaneous|alternating" in shown
    assert "None" not in shown


def test_changes_are_named_but_those_that_a_resumed_run_may_make():
    before = resolved(Configuration())
    assert changes(before, dataclasses.replace(before, iterations=5, device="cuda", log_every=1, data_root="/")) == []
    elsewhere = dataclasses.replace(before, channels_last=True, compile=True, workers=0, tensorboard=True)
    assert changes(before, elsewhere) == []
    other = dataclasses.replace(before, precision="bfloat16", across="blocks")
    assert changes(before, other) == [
        "across was 'global' and is 'blocks'",
        "precision was 'float32' and is 'bfloat16'",
    ]
    after = dataclasses.replace(before, seed=1, loss="mmd-rep")
    assert changes(before, after) == ["loss was 'mmd-rep-b' and is 'mmd-rep'", "seed was 0 and is 1"]
