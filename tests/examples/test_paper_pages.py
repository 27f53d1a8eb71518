"""The pages of the papers: scripts understand their commands, and their settings are those of the presets."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import arbel2018.presets
import pytest
import sweep
import wang2019.presets
from sweeps.runs import SWEEPS
from training.settings import read

ROOT = Path(__file__).parents[2]
PAGES = ("experiments.md", "wang2019.md", "arbel2018.md", "evaluation.md", "figures.md", "study.md")
COMMAND = re.compile(r"python (examples/[\w/]+\.py)(.*)")


def text(page: str) -> str:
    return (ROOT / "docs" / page).read_text(encoding="utf-8").replace("\\\n", " ")


def commands(page: str) -> list[tuple[str, list[str]]]:
    """Return the scripts in the blocks of commands of a page, each with its options."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```$", text(page), re.DOTALL | re.MULTILINE):
        values = dict(re.findall(r'^(\w+)="([^"]*)"$', block, re.MULTILINE))
        values |= dict(re.findall(r"^for (\w+) in (\S+).*; do$", block, re.MULTILINE))
        used = re.sub(r'^\w+=".*"$', "", block, flags=re.MULTILINE)
        for name, value in values.items():
            used = used.replace(f"${name}", value)
        found += [(script, shlex.split(options)) for script, options in COMMAND.findall(used)]
    return found


def chosen(script: str, options: list[str]) -> Any:
    """Return the settings that the options of a training script come to."""
    kind, _, name = Path(script).stem.partition("_")
    presets, dataset = (wang2019.presets, arbel2018.presets)[kind == "smmd"], name.replace("_", "-")
    if kind == "smmd":
        method = options.index("--method") if "--method" in options else None
        preset = f"{dataset}-{'sn-smmd' if method is None else options[method + 1]}"
        options = options if method is None else options[:method] + options[method + 2 :]
    else:
        preset = dataset
    return presets.resolved(read(presets.PRESETS, "", [preset, *options]))


def cells(page: str, section: str, first: str) -> list[str]:
    """Return the cells after the first one of the line of a section's tables that begins with it."""
    (part,) = re.findall(rf"^##+ {section}\n(.*?)(?=^## |\Z)", text(page), re.DOTALL | re.MULTILINE)
    (line,) = re.findall(rf"^\| {re.escape(first)} \| (.*)\|$", part, re.MULTILINE)
    return [cell.strip() for cell in line.split("|")]


@pytest.mark.parametrize("page", PAGES)
def test_scripts_of_the_pages_exist(page: str):
    found = [script for script, _ in COMMAND.findall(text(page))]
    assert found
    assert [script for script in found if not (ROOT / script.strip("`")).is_file()] == []


@pytest.mark.parametrize("page", ["experiments.md", "wang2019.md", "arbel2018.md"])
def test_training_scripts_understand_their_commands(page: str):
    trained = [each for each in commands(page) if re.fullmatch(r"examples/(dcgan|smmd)_\w+\.py", each[0])]
    assert len(trained) >= 4
    for script, options in trained:
        settings = chosen(script, options)
        assert settings.dataset == Path(script).stem.partition("_")[2].replace("_", "-")


@pytest.mark.parametrize("page", ["experiments.md", "wang2019.md"])
def test_the_sweep_understands_its_commands(page: str, monkeypatch: pytest.MonkeyPatch):
    done: list[object] = []
    for kind in (sweep.Train, sweep.Collect):
        monkeypatch.setattr(kind, "do", lambda self: done.append(self) or 0)
    found = [options for script, options in commands(page) if script == "examples/sweep.py"]
    for options in found:
        sweep.main(options)
    assert len(done) == len(found) >= 3
    assert {getattr(each, "study", None) or each.recipe.study for each in done} <= set(SWEEPS)


def test_the_page_lists_the_sweeps_with_their_runs():
    from sweeps.runs import plan

    for name, each in SWEEPS.items():
        assert cells("wang2019.md", "Sweeps", f"`{name}`")[0] == str(len(plan(each, {})))


def test_settings_of_wang_are_those_of_the_presets():
    presets = [
        wang2019.presets.resolved(wang2019.presets.PRESETS[name]) for name in ("cifar10", "stl10", "celeba", "lsun")
    ]
    for row, name in {"learning rate of D": "lr_discriminator", "learning rate of G": "lr_generator"}.items():
        assert [float(cell) for cell in cells("wang2019.md", "Settings", row)[:4]] == [
            getattr(each, name) for each in presets
        ]
    sizes = [int(re.match(r"\d+", cell)[0]) for cell in cells("wang2019.md", "Settings", "size in pixels")[:4]]
    assert sizes == [each.size for each in presets]
    layers = [wang2019.networks.normalised_layers(each.size) for each in presets]
    assert [int(cell) for cell in cells("wang2019.md", "Settings", "layers K of D with a norm")[:4]] == layers


def test_settings_of_arbel_are_those_of_the_presets():
    presets = [arbel2018.presets.PRESETS[f"{name}-sn-smmd"] for name in ("cifar10", "celeba", "imagenet")]
    assert [int(cell) for cell in cells("arbel2018.md", "Settings", "size in pixels")[:3]] == [
        each.size for each in presets
    ]
    rates = [float(cell) for cell in cells("arbel2018.md", "Settings", "first learning rates")[:3]]
    assert rates == [each.lr_generator for each in presets] == [each.lr_discriminator for each in presets]


@pytest.mark.parametrize("method", arbel2018.presets.METHODS)
def test_methods_of_arbel_are_those_of_the_presets(method: str):
    settings = arbel2018.presets.resolved(arbel2018.presets.PRESETS[f"cifar10-{method}"])
    _, _, layers, weights = cells("arbel2018.md", "Methods", f"`{method}`")
    gamma = {"learned": "parametrised, $\\gamma$ learned", "fixed": "parametrised, $\\gamma = 1$"}[settings.gamma]
    assert layers == ("as they are" if settings.normalisation == "none" else gamma)
    expected = {
        "smmd": settings.scale_weight,
        "swgan": settings.scale_weight,
        "sobolev": settings.sobolev_rho,
    }.get(settings.loss, settings.gradient_penalty)
    found = re.search(r"\d[\d.e-]*", weights)
    assert float(found[0] if found else 0) == expected


@pytest.mark.parametrize(
    ("name", "loss", "normalisation", "gamma", "gradient_penalty", "l2_penalty"),
    [
        ("MMDGAN", "mmd", "none", None, 0, 0),
        ("SN-MMDGAN", "mmd", "matrix", "fixed", 0, 0),
        ("SN-WGAN", "wgan", "matrix", "fixed", 0, 0),
        ("SN-MMDGAN-GP", "mmd", "matrix", "learned", 1, 0),
        ("SN-WGAN-GP", "wgan", "matrix", "learned", 10, 0),
        ("SN-MMDGAN-GP-L2", "mmd", "matrix", "learned", 1, 1),
        ("SN-MMDGAN-L2", "mmd", "matrix", "fixed", 0, 1),
    ],
)
def test_options_for_table_2_make_its_methods(
    name: str, loss: str, normalisation: str, gamma: str | None, gradient_penalty: float, l2_penalty: float
):
    options, *_ = cells("arbel2018.md", "Methods", name)
    settings = chosen("examples/smmd_cifar10.py", shlex.split(options.strip("`")))
    found = settings.gamma if settings.normalisation != "none" else None
    assert (settings.loss, settings.normalisation, found) == (loss, normalisation, gamma)
    assert (settings.gradient_penalty, settings.l2_penalty) == (gradient_penalty, l2_penalty)
