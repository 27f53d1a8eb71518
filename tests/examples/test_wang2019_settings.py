"""The settings of the experiments: presets, the command line made of them, and which of them fit each other."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from training.settings import changes, read, saved
from wang2019.presets import PRESETS, Wang2019, resolved
from wang2019.train import main, script

EXAMPLES = Path(__file__).parents[2] / "examples"
RATES = (1e-4, 2e-4, 5e-4, 1e-3)
"""Of which the paper tried all pairs."""


def make(**settings: object) -> Wang2019:
    return Wang2019(out=Path("run"), **settings)


def parsed(*arguments: str, preset: str = "cifar10") -> Wang2019:
    return read(PRESETS, "Train.", [preset, *arguments])


def test_presets_have_the_settings_of_the_paper():
    pairs = {}
    for name, size in {"cifar10": 32, "stl10": 48, "celeba": 64, "lsun": 64}.items():
        preset = resolved(PRESETS[name])
        assert (preset.dataset, preset.size, preset.channels) == (name, size, 3)
        assert (preset.width, preset.noise, preset.scores) == (64, 128, 16)
        assert (preset.loss, preset.lambda_, preset.updates) == ("mmd-rep-b", 1.0, "simultaneous")
        assert (preset.batch_size, preset.iterations) == (64, 100_000)
        assert (preset.normalisation, preset.scale, preset.gradient_penalty) == ("pico", 1 / 0.55, 0)
        pairs[name] = (preset.lr_discriminator, preset.lr_generator)
        assert set(pairs[name]) <= set(RATES)
    assert pairs == {"cifar10": (5e-4, 2e-4), "stl10": (2e-4, 2e-4), "celeba": (1e-4, 2e-4), "lsun": (2e-4, 1e-4)}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_resolve_once_and_survive_json(name: str):
    preset = resolved(PRESETS[name])
    assert resolved(preset) == preset
    assert Wang2019(out=preset.out, **json.loads(json.dumps(saved(preset)))) == dataclasses.replace(
        preset, data_root=str(preset.data_root)
    )
    for option in ("scores", "lambda_", "normalisation", "scale"):
        assert getattr(preset, option) is not None


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"loss": "hinge"}, {"scores": 1, "lambda_": None, "normalisation": "pico"}),
        *(({"loss": name}, {"scores": 1}) for name in ("minimax", "non-saturating", "wasserstein")),
        *(({"loss": f"mmd-{rest}"}, {"scores": 16, "lambda_": -1.0}) for rest in ("rbf", "rq", "rbf-b")),
        *(({"loss": name}, {"scores": 16, "lambda_": 1.0}) for name in ("mmd-rep", "mmd-rep-b")),
        ({"loss": "mmd-rep", "lambda_": 0.5, "scores": 256}, {"scores": 256, "lambda_": 0.5}),
        ({"gradient_penalty": 0.1}, {"scores": 1, "normalisation": "none"}),
        ({"loss": "smmd"}, {"scores": 1, "lambda_": None, "normalisation": "none"}),
        ({"loss": "smmd", "normalisation": "pico"}, {"normalisation": "pico"}),
        ({"gradient_penalty": 0.1, "scores": 4, "normalisation": "matrix"}, {"scores": 4, "normalisation": "matrix"}),
        ({"total_scale": 64.0}, {"scale": 64 ** (1 / 8), "total_scale": None}),
        ({"total_scale": 64.0, "size": 64, "dataset": "lsun"}, {"scale": 64 ** (1 / 10)}),
        ({"scale": 1.5}, {"scale": 1.5}),
    ],
)
def test_what_is_not_chosen_follows_from_the_rest(settings: dict[str, object], expected: dict[str, object]):
    chosen = resolved(make(**settings))
    assert {name: getattr(chosen, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": "stl10"}, "stl10 has images of size 48 with 3 channels, but size and channels are 32 and 3"),
        ({"channels": 1}, "cifar10 has images of size 32 with 3 channels, but size and channels are 32 and 1"),
        *(({"loss": n, "lambda_": 1.0}, f"lambda: expected none for '{n}', which is not") for n in ("hinge", "smmd")),
        ({"loss": "hinge", "scores": 16}, "scores: expected 1 for hinge, got 16"),
        ({"loss": "hinge", "gradient_penalty": 0.1}, "gradient_penalty: expected mmd-rep or mmd-rep-b"),
        ({"loss": "mmd-rbf", "gradient_penalty": 0.1}, "gradient_penalty: expected mmd-rep or mmd-rep-b"),
        ({"lambda_": 2.0, "gradient_penalty": 0.1}, "with lambda between 0 and 1; got mmd-rep-b with lambda 2"),
        ({"lambda_": -1.0, "gradient_penalty": 0.1}, "with lambda between 0 and 1; got mmd-rep-b with lambda -1"),
        ({"gradient_penalty": 0.1, "compile": True}, "compile: expected none with a gradient penalty"),
        ({"loss": "smmd", "compile": True}, "compile: expected none with a gradient penalty or smmd"),
        ({"scale": 1.5, "total_scale": 64.0}, "total_scale: expected none with scale, got 64.0 and 1.5"),
        ({"batch_size": 1}, "batch_size: expected a number >= 2, got 1"),
        ({"lr_generator": 0.0}, "lr_generator: expected a number > 0, got 0.0"),
        ({"ema_decay": 1.0}, "ema_decay: expected a number >= 0 and < 1, got 1.0"),
        ({"lambda_": float("nan")}, "lambda_: expected a number that is finite, got nan"),
        ({"seed": 2**32}, "seed: expected a number >= 0 and < 4294967296, got 4294967296"),
        ({"workers": -1}, "workers: expected a number >= 0, got -1"),
        ({"keep_every": 0}, "keep_every: expected a number >= 1, got 0"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(
    settings: dict[str, object], message: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(ValueError, match=message):
        make(**settings)
    words = [f"--{name.rstrip('_').replace('_', '-')}" for name in settings]
    options = [word for pair in zip(words, map(str, settings.values()), strict=True) for word in pair]
    with pytest.raises(SystemExit, match="2"):
        parsed(*[option for option in options if option != "True"])
    shown = " ".join(capsys.readouterr().err.replace("│", " ").split())  # without the box around it
    assert re.search(message, shown)


def test_every_setting_has_an_option_and_the_help_explains_it(capsys: pytest.CaptureFixture[str]):
    words = ["--lambda", "-0.5", "--out", "x", "--keep-every", "3", "--compile", "--updates", "alternating"]
    chosen = {"lambda_": -0.5, "out": Path("x"), "keep_every": 3, "compile": True, "updates": "alternating"}
    assert parsed(*words, preset="lsun") == dataclasses.replace(PRESETS["lsun"], **chosen)
    with pytest.raises(SystemExit, match="0"):
        parsed("--help")
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for field in dataclasses.fields(Wang2019):
        assert f"--{field.name.rstrip('_').replace('_', '-')}" in shown
    for meaning in (
        "seed of all random numbers",
        "learning rate of the generator",
        "C^K for all K layers, in place of --scale",
    ):
        assert meaning in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--iterations", "many"], "many"),
        (["--size", "28"], "32"),
        (["--loss", "gan"], "mmd-rep-b"),
        (["--learning-rate", "1"], "--learning-rate"),
        (["--device", "meta"], "cpu"),
        (["--normalisation", "None"], "none"),  # one spelling
    ],
)
def test_wrong_options_are_explained(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        parsed(*arguments)
    assert message in "".join(capsys.readouterr())


def test_the_usage_has_the_name_of_a_preset_only_where_it_is_typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for words, given, usage in (
        (["dcgan_fake.py", "--help"], ["fake", "--help"], "usage: dcgan_fake.py [-h] "),
        (["train.py", "fake", "--help"], None, "usage: train.py fake [-h] "),
        (["train.py", "--help"], None, "usage: train.py [-h] {cifar10,stl10,"),
    ):
        monkeypatch.setattr("sys.argv", words)
        with pytest.raises(SystemExit, match="0"):
            read(PRESETS, "Train.", given)
        shown = capsys.readouterr().out
        assert shown.startswith(usage)
        assert ("images of stl10, 48 x 48 pixels, 100,000 iterations" in shown) == (words == ["train.py", "--help"])


def test_the_help_of_a_script_begins_with_its_own_description(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for name in PRESETS:
        text = (EXAMPLES / f"dcgan_{name.replace('-', '_')}.py").read_text(encoding="utf-8")
        assert f'script("{name}", str(__doc__))' in text
    monkeypatch.setattr("sys.argv", ["dcgan_fake.py", "--help"])
    with pytest.raises(SystemExit, match="0"):
        script("fake", "What it does.")
    assert "\n\nWhat it does.\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Missing subcommand"),
        (["mnist"], "Unrecognized options: mnist"),
        (["--loss", "hinge"], "misplaced options"),
    ],
)
def test_an_unknown_preset_is_refused_with_a_list_of_them(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.argv", ["train.py", *words])
    with pytest.raises(SystemExit, match="2"):
        read(PRESETS, "Train.", None)
    shown = capsys.readouterr().err
    assert all(name in shown for name in PRESETS)
    assert message in shown


def test_a_dry_run_prints_the_resolved_settings_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main(["fake", "--out", str(tmp_path / "run"), "--dry-run", "--loss", "hinge"])
    printed = json.loads(capsys.readouterr().out)
    assert (printed["scores"], printed["loss"], printed["out"]) == (1, "hinge", str(tmp_path / "run"))
    of_command = Wang2019.OF_COMMAND - {"out"}
    assert printed.keys() == {field.name for field in dataclasses.fields(Wang2019)} - of_command
    assert not (tmp_path / "run").exists()


def test_changes_are_named_but_those_that_a_resumed_run_may_make():
    before = saved(resolved(make()))
    free = {"iterations": 5, "device": "cuda", "devices": 2, "log_every": 1, "data_root": Path("/"), "compile": True}
    assert changes(before, resolved(make(**free))) == []
    assert changes(before, resolved(make(precision="bf16-mixed", across="blocks", seed=1))) == [
        "across was 'global' and is 'blocks'",
        "precision was '32-true' and is 'bf16-mixed'",
        "seed was 0 and is 1",
    ]
