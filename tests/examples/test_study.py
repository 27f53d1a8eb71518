"""The study of the papers' claims: what it runs, what it keeps of it, what it says; and that the docs say the same."""

from __future__ import annotations

import json
import math
import re
import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import study
import sweeps
import training
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from stubs import EVALUATE, TRAIN
from studies import pictures, protocol, tables
from studies.logs import Grid
from studies.protocol import setting
from sweeps.runs import Group, Recipe, Run
from sweeps.runs import write as write_record
from trained import refusal
from training.settings import read
from wang2019.losses import MMD
from wang2019.presets import PRESETS, resolved

pytestmark = pytest.mark.xdist_group("processes")

ROOT = Path(__file__).parents[2]
CHECKPOINTS = range(400, protocol.ITERATIONS + 1, 400)
BEST = ("0.0005", "0.002")
FOLDER = ROOT / "examples" / "studies" / "fashion_mnist"
"""The best pair in what follows."""


# What is run


def test_the_runs_are_those_of_the_plan_whichever_pairs_are_best():
    for pair in protocol.PAIRS:
        runs = protocol.planned(lambda chosen, pair=pair: pair)
        assert len({run.name for run in runs}) == len(runs) == 32 + 36 + 16 + 6 + 9 + 15
        for name, settings in protocol.QUESTIONS.items():
            pairs = protocol.PAIRS if name in ("losses", "lambda") else []
            seeds = [] if name == "lambda" else protocol.SEEDS
            assert {Run(each, of, 0) for each in settings for of in pairs} <= set(runs)
            assert {Run(each, pair, seed) for each in settings for seed in seeds} <= set(runs)
    assert len(protocol.planned(lambda chosen: None)) == 32 + 36


def test_the_training_script_knows_all_runs_and_no_two_are_the_same_training():
    runs = protocol.planned(lambda chosen: protocol.PAIRS[0])
    recipe = Recipe("x", Path("out"), Path("script.py"), options=tuple(protocol.OPTIONS.split()))
    settings = [resolved(read(PRESETS, "x", ["fashion-mnist", *recipe.training(run)[2:]])) for run in runs]
    assert {each.iterations for each in settings} == {protocol.ITERATIONS}
    # What decides a training is the kernel and not the name of the loss.
    trainings = {str({**asdict(each), "loss": MMD.get(each.loss, (each.loss,))[0]}) for each in settings}
    assert len(trainings) == len(runs) == 114


def test_a_setting_has_one_name_however_it_is_asked_for():
    usual = {"scores": 16, "scale": 1 / 0.55, "updates": "simultaneous", "normalisation": "pico", "lambda": 1}
    assert setting("mmd-rep", **usual) == (("loss", "mmd-rep"),)
    assert setting("mmd-rep-b", **{"lambda": -1}) == setting("mmd-rbf-b") == setting("mmd-rbf-b", **{"lambda": -1})
    assert dict(setting("mmd-rep", **{"lambda": -1})) == {"loss": "mmd-rep", "lambda": "-1"}
    assert dict(setting("hinge", updates="alternating")) == {"loss": "hinge", "updates": "alternating"}


def test_a_loss_that_a_reader_adds_changes_neither_the_runs_nor_the_pictures(
    raw: Grid, monkeypatch: pytest.MonkeyPatch
):
    expected = setting("mmd-rep", **{"lambda": 0.5})
    monkeypatch.setitem(MMD, "mmd-half", (MMD["mmd-rep"][0], 0.5))
    assert setting("mmd-rep", **{"lambda": 0.5}) == expected
    assert len(drawn("kernel-means", raw).axes) == 6


# Raw logs


@pytest.fixture
def raw(tmp_path: Path) -> Grid:
    return Grid(tmp_path / "raw")


def write(raw: Grid, run: Run, fid: float, *, coverage: float = 1.0) -> None:
    """Write the raw log of a run that has an FID at all checkpoints; it diverges if that is inf."""
    diverged, metrics = fid == math.inf, {"fid": fid, "kid_mean": fid / 100, "class_coverage": coverage}
    of_kernel = (
        {}
        if run.group[0][1] in ("non-saturating", "hinge")
        else {"k_rr": 0.5, "k_rf": 0.2, "k_ff": 0.8, "saturated": 0.1}
    )
    lines: list[dict[str, Any]] = [
        {
            "kind": "run",
            "settings": run.settings,
            "status": "diverged" if diverged else "finished",
            "iteration": protocol.ITERATIONS,
        },
        *({"kind": "training", "iteration": iteration, **of_kernel} for iteration in (1, 100, 200)),
        *({"kind": "evaluation", "iteration": at, "metrics": metrics} for at in CHECKPOINTS if not diverged),
    ]
    raw.path.mkdir(exist_ok=True)
    raw.log(run).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def write_grid(raw: Grid, chosen: Group, fids: Sequence[float]) -> None:
    """Write the raw logs of the first seed for all pairs."""
    for pair, fid in zip(protocol.PAIRS, fids, strict=True):
        write(raw, Run(chosen, pair, 0), fid)


def write_seeds(raw: Grid, chosen: Group, fids: Sequence[float], **more: float) -> None:
    """Write the raw logs of the seeds at the best pair, as many as there are."""
    for seed, fid in zip(protocol.SEEDS, fids, strict=False):
        write(raw, Run(chosen, BEST, seed), fid, **more)


def write_loss(raw: Grid, loss: str, fids: Sequence[float]) -> None:
    """Write the raw logs of a loss: at the best pair with some seeds, and at the other pairs."""
    write_grid(raw, setting(loss), [30.0] * 4)
    write_seeds(raw, setting(loss), fids)


def write_all(raw: Grid) -> None:
    """Write raw logs of all runs, with an FID of 20 at the best pair and 30 at the others, and costs and floor."""
    for run in protocol.planned(lambda chosen: BEST):
        write(raw, run, 20.0 if run.pair == BEST else 30.0)
    for name in (tables.COSTS, tables.FLOOR):
        shutil.copy(FOLDER / name, raw.path)


def rows(table: str) -> list[list[str]]:
    """Return the cells of the lines of a table."""
    lines = [[cell.strip() for cell in line.strip("|\n").split(" | ")] for line in table.splitlines()]
    assert len({len(line) for line in lines}) == 1
    return lines[2:]


@pytest.mark.parametrize(
    ("ended", "exported"),
    [
        ({}, False),
        ({"status": "failed"}, False),
        ({"status": "finished"}, False),
        ({"status": "finished", "evaluated": "--images=10"}, False),
        ({"status": "finished", "evaluated": "--all"}, True),
        ({"status": "diverged", "message": "Stopped"}, True),
    ],
)
def test_a_raw_log_has_all_that_is_known_of_a_run_that_is_through_and_is_written_once(
    ended: dict[str, str], exported: bool, raw: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    run, recipe = Run(setting("hinge"), BEST, 0), Recipe("s", tmp_path, Path("t.py"), evaluate="--all")
    folder, record = tmp_path / run.name, recipe.fresh(run) | {"iteration": 3} | ended
    write_record(folder, record)
    (folder / "configuration.json").write_text('{"width": 8}')
    (folder / "log.jsonl").write_text('{"iteration": 1, "loss": 0.123456789, "sigma": {"a": 2}, "x": null}\n{"it')
    (folder / "evaluations").mkdir()
    for iteration in (1, 3):
        origin = {"command": f"evaluate.py {tmp_path}/x", "checkpoint": {"iteration": iteration}}
        shares = {"measured": [1], "real": [1]}
        result = {"metrics": {"fid": 9 / iteration}, "class_shares": shares, "provenance": origin}
        (folder / "evaluations" / f"iteration-{iteration}.json").write_text(json.dumps(result))
    raw.export(run, recipe)
    assert raw.log(run).exists() is exported
    if exported:
        of_run, training, *evaluations = map(json.loads, raw.log(run).read_text().splitlines())
        assert of_run == {"kind": "run", **record, "configuration": {"width": 8}}
        assert training == {"kind": "training", "iteration": 1, "loss": 0.123457, "sigma": {"a": 2}, "x": None}
        found = [(line["iteration"], line["metrics"], line["class_shares"]) for line in evaluations]
        assert found == [(1, {"fid": 9}, [1]), (3, {"fid": 3}, [1])]
        assert "provenance" not in evaluations[0]
        # Without paths of this machine.
        assert evaluations[1]["provenance"] == {"command": "evaluate.py x", "checkpoint": {"iteration": 3}}


@given(st.permutations([3.0, 4.0, math.inf, 50.0]))
def test_the_best_pair_is_that_of_the_first_seed_when_all_pairs_are_known(
    tmp_path_factory: pytest.TempPathFactory, fids: list[float]
):
    raw, chosen = Grid(tmp_path_factory.mktemp("raw")), setting("hinge")
    write_grid(raw, chosen, fids)
    best = protocol.PAIRS[fids.index(3.0)]
    assert raw.best_pair(chosen) == best
    write(raw, Run(chosen, protocol.PAIRS[fids.index(50.0)], 1), 1.0)
    write(raw, Run(chosen, best, 2), 9.0)
    assert tables.fids(raw.over_seeds(chosen)) == [3.0, 9.0]
    # The other settings of a loss have its pair.
    alternating = setting("hinge", updates="alternating")
    write(raw, Run(alternating, best, 1), 7.0)
    assert tables.fids(raw.over_seeds(alternating)) == [7.0]
    raw.log(Run(chosen, protocol.PAIRS[0], 0)).unlink()
    assert raw.best_pair(chosen) is None
    assert raw.over_seeds(chosen) == []
    write_grid(raw, chosen, [math.inf] * 4)
    assert raw.best_pair(chosen) is None


# Tables


def seeds_of(mean: float, spread: float, count: int) -> list[float]:
    """Return numbers of a mean and of a standard deviation."""
    places = [float(place) for place in range(count)]
    return [mean + spread * (place - statistics.fmean(places)) / statistics.stdev(places) for place in places]


@given(st.floats(0.01, 5), st.floats(0.01, 5), st.integers(2, 4), st.integers(2, 4), st.sampled_from([-1, 1]))
def test_a_claim_holds_or_fails_beyond_two_standard_errors(first: float, second: float, n1: int, n2: int, sign: int):
    error = math.sqrt(first**2 / n1 + second**2 / n2)
    for factor, expected in ((1.99, ("cannot tell", "not refuted")), (2.01, ("does not hold", "holds")[sign < 0])):
        found = tables.difference(seeds_of(20 + sign * factor * error, first, n1), seeds_of(20, second, n2))
        assert found is not None
        assert found == (pytest.approx(sign * factor * error), pytest.approx(error))
        verdicts = tables.verdict(found), tables.verdict(found, or_equal=True)
        assert verdicts == (expected if isinstance(expected, tuple) else (expected, expected))


@pytest.mark.parametrize("first", [[], [1.0], [1.0, math.inf, 1.2]])
def test_too_few_seeds_and_diverged_ones_tell_nothing(first: list[float]):
    assert tables.difference(first, [4.0, 5.0, 6.0]) is None
    assert tables.difference([4.0, 5.0, 6.0], first) is None


def test_the_claims_are_of_runs_of_the_study():
    runs = set(protocol.planned(lambda chosen: BEST))
    for better, _, worse, _ in tables.CLAIMS:
        settings = (*tables.SIDES[better], *tables.SIDES[worse])
        assert {Run(each, BEST, seed) for each in settings for seed in protocol.SEEDS} <= runs
    assert len({(better, worse) for better, _, worse, _ in tables.CLAIMS}) == len(tables.CLAIMS) == 13


def test_the_table_of_claims_has_numbers_and_verdicts(raw: Grid):
    write_all(raw)
    for loss, fids in {
        "mmd-rep": [3.0, 4.0, 5.0],
        "mmd-rbf": [6.0, 7.0, 8.0],
        "hinge": [3.1, 4.2, 5.3],
        "non-saturating": [1.0, 1.1, 1.2],
        "mmd-rep-b": [4.0, 4.5, 4.25],
        "mmd-rq": [6.0, math.inf, 7.0],
    }.items():
        write_loss(raw, loss, fids)
    found = {claim: cells for claim, *cells in rows(tables.TABLES["claims"](raw))}
    assert found["mmd-rep is better than mmd-rbf"] == ["5.2, 1)", "4.00 ± 1.00", "7.00 ± 1.00", "-3.00 ± 0.82", "holds"]
    assert found["mmd-rep is better than hinge"][-2:] == ["-0.20 ± 0.86", "cannot tell"]
    assert found["mmd-rep is better than non-saturating"][-1] == "does not hold"
    equal = ["4.25 ± 0.25", "4.00 ± 1.00", "+0.25 ± 0.60", "not refuted"]
    assert found["mmd-rep-b is not worse than mmd-rep"][1:] == equal
    assert found["mmd-rbf-b is better than mmd-rq"][2:] == ["6.50 ± 0.71 (3, 1 diverged)", "-", "cannot tell"]
    # The best of several constants stands for a norm.
    for norm, by_scale in (("pico", ([1, math.inf, 2], None, [4, 5, 6])), ("matrix", ([8, 9, 10],) * 3)):
        for scale, fids in zip(protocol.SCALES, by_scale, strict=True):
            write_seeds(raw, setting("mmd-rep", normalisation=norm, scale=scale), fids or ())
    assert rows(tables.TABLES["claims"](raw))[-1][2:] == ["4.00 ± 1.00", "9.00 ± 1.00", "-5.00 ± 0.82", "holds"]


def test_tables_say_what_failed(raw: Grid):
    write_all(raw)
    write_grid(raw, setting("mmd-rep"), [math.inf, 3.0, 40.5, 39.0])
    write_seeds(raw, setting("mmd-rep"), [3.0, 4.0, 5.0], coverage=0.9)
    write_loss(raw, "smmd", [3.0, math.inf, 5.0])
    write_grid(raw, setting("hinge"), [math.inf] * 4)
    found = {loss: cells for loss, *cells in rows(tables.TABLES["losses"](raw))}
    assert found["mmd-rep"] == ["0.0005 / 0.002", "4.00 ± 1.00", "0.0400 ± 0.0100", "90 ± 0 %", "3", "2 of 4"]
    assert found["smmd"] == ["0.0005 / 0.002", "4.00 ± 1.41", "0.0400 ± 0.0141", "100 ± 0 %", "3, 1 diverged", "0 of 4"]
    assert found["hinge"] == ["-", "-", "-", "-", "0 of 3", "4 of 4"]
    assert found["floor: training images"][1:] == ["0.0637", "-0.0007", "100 %", "-", "-"]
    write_seeds(raw, setting("mmd-rep", scores=64), [2.0, 4.0, math.inf])
    by_scores = [["1", "3"], ["4", "3"], ["16", "3"], ["64", "3, 1 diverged"]]
    assert [cells[0::4] for cells in rows(tables.TABLES["scores"](raw))] == by_scores
    # That of the bounded kernel with -1 goes by the name of the attractive loss.
    write(raw, Run(setting("mmd-rbf-b"), BEST, 0), 4.0)
    by_lambda = rows(tables.TABLES["lambda"](raw))
    assert by_lambda[4] == ["RBF", "1", "diverged", "3.00", "40.50", "39.00", "3.00", "1 of 4", "2 of 4"]
    assert by_lambda[6] == ["RBF-B", "-1", "30.00", "4.00", "30.00", "30.00", "4.00", "0 of 4", "0 of 4"]
    lowest, attractive, failed, in_all = rows(tables.TABLES["observations"](raw))
    assert lowest[1] == "20.00 at -1; 20.00 at -0.5; 20.00 at 0; 20.00 at 0.5; 3.00 at 1; 20.00 at 2"
    assert attractive[1:] == ["20.00 at -1; 20.00 at -0.5", "4.00 at -1; 20.00 at -0.5"]
    assert failed[1] == "0 at -1; 0 at -0.5; 0 at 0; 0 at 0.5; 2 at 1; 0 at 2"
    assert in_all[1:] == ["2 of 24", "0 of 24"]


def test_tables_follow_the_training(raw: Grid):
    write_loss(raw, "mmd-rep", [3.0, 4.0, math.inf])
    write_loss(raw, "smmd", [5.0])
    path = raw.log(Run(setting("smmd"), BEST, 0))
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        if line.get("iteration") in (400, 1200):
            line["metrics"]["fid"] = 6000 / line["iteration"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    found = {loss: cells for loss, *cells in rows(tables.TABLES["progress"](raw))}
    assert found["mmd-rep"] == ["3.50 ± 0.71"] * 5
    assert found["smmd"] == ["15.00", "5.00", "5.00", "5.00", "5.00"]
    assert tables.TABLES["progress"](raw).startswith("| loss | FID at 400 | FID at 800 | FID at 1,200 |")
    means = rows(tables.TABLES["kernel_means"](raw))
    assert [row[:2] for row in means[:4]] == [["mmd-rep", each] for each in ("1", "100", "400", "2,000")]
    assert means[1][2:] == ["0.50 ± 0.00", "0.20 ± 0.00", "0.80 ± 0.00", "10 ± 0"]
    assert means[2][2:] == means[5][2:] == ["-"] * 4


def test_the_kernel_values_of_good_runs_follow_the_rules_in_practice():
    """The numbers of "What to log" and "Dead losses" in `docs/practice.md`, and the learning rates in `docs/gan.md`."""
    logs_ = Grid(FOLDER)
    runs = [run for loss in protocol.KERNELS.values() for run in logs_.over_seeds(setting(loss))]
    assert len(runs) == 6
    for run in runs:
        first, *later = run.training
        assert all(0.98 < first[name] <= 1 for name in tables.MEANS)
        for line in later:
            assert all(0.15 < line[name] < 0.8 for name in tables.MEANS)
            assert line["saturated"] < 0.2
            assert line["k_rr"] < line["k_rf"] < line["k_ff"]
    for loss in ("mmd-rbf", "mmd-rq", "mmd-rbf-b", "mmd-rep", "mmd-rep-b"):
        assert logs_.best_pair(setting(loss)) == ("0.0005", "0.002")
    ahead = {}
    for loss in protocol.KERNELS.values():
        found = logs_.over_pairs(setting(loss))
        at_100 = [(run, line) for run in found for line in run.training if line["iteration"] == 100]
        ahead[loss] = [tables.failed([run]) == 1 for run, line in at_100 if line["k_ff"] > 0.97 and line["k_rf"] < 0.01]
    assert ahead == {"mmd-rep": [True] * 3, "mmd-rep-b": [False]}


# Pictures


def drawn(name: str, raw: Grid) -> Any:
    """Return the figure of a picture."""
    figure = pytest.importorskip("matplotlib.figure").Figure()
    pictures.PICTURES[name][0](figure, raw)
    return figure


def test_curves_are_means_over_seeds_with_all_seeds_in_the_band(raw: Grid):
    write_loss(raw, "hinge", [3.0, 4.0, 8.0])
    write_loss(raw, "smmd", [20.0, 6.0, math.inf])
    lines = [{"settings": {"loss": loss}, "milliseconds": 50.0, "share_of_loss": None} for loss in protocol.LOSSES]
    (raw.path / tables.COSTS).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    by_iteration, by_time = drawn("curves", raw).axes
    hinge, smmd = by_iteration.lines
    assert [hinge.get_label(), smmd.get_label()] == ["hinge", "smmd"]
    assert list(hinge.get_xdata()) == list(CHECKPOINTS)
    assert list(hinge.get_ydata()) == [5.0] * 5
    assert list(smmd.get_ydata()) == [13.0] * 5
    assert [list(line.get_xdata()) for line in by_time.lines] == [[20, 40, 60, 80, 100]] * 2
    heights = by_iteration.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (3, 8)
    assert tuple(pictures.STYLES) == protocol.LOSSES
    panels = drawn("kernel-means", raw).axes
    assert [len(axes.lines) for axes in panels] == [0, 0, 0, 0, 0, 3]
    means = [list(line.get_ydata()) for line in panels[5].lines]
    assert means == [pytest.approx([value] * 3) for value in (0.5, 0.2, 0.8)]


def test_samples_are_the_first_images_of_each_sheet(raw: Grid):
    write_loss(raw, "hinge", [3.0])
    path, side = raw.sheet(Run(setting("hinge"), BEST, 0)), pictures.SIDE
    path.parent.mkdir()
    sheet = Image.new("L", (8 * side, 8 * side), 255)
    for number in range(64):
        x, y = number % 8 * side, number // 8 * side
        sheet.paste(3 * number, (x, y, x + side, y + side))
    sheet.save(path)
    (axes,) = drawn("samples", raw).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == list(protocol.LOSSES)
    shown = axes.images[0].get_array()[side // 2 :: side, side // 2 :: side].tolist()
    assert shown.pop(protocol.LOSSES.index("hinge")) == [3 * number for number in range(pictures.COLUMNS)]
    assert shown == [[255] * pictures.COLUMNS] * 7


# The report

PLACE = "# Name\n\n<!-- table of the study -->\n\n| old |\n<!-- its end -->\n\nMore.\n"
LOG = "loss=mmd-rep,lr-discriminator=0.0005,lr-generator=0.002,seed=0.jsonl"


def test_the_report_is_unchanged_and_made_of_the_raw_logs_alone(tmp_path: Path):
    shutil.copy(ROOT / "README.md", tmp_path)
    raw = shutil.copytree(FOLDER, tmp_path / "raw")
    assert study.main(["report", f"--raw={raw}", f"--root={tmp_path}"]) == 0
    assert (tmp_path / "README.md").read_bytes() == (ROOT / "README.md").read_bytes(), "python examples/study.py report"
    written = {path.name: path.read_bytes() for path in (tmp_path / "docs" / "_study").iterdir()}
    assert written == {path.name: path.read_bytes() for path in (ROOT / "docs" / "_study").iterdir()}
    drawn_ = {path.name for path in (tmp_path / "docs" / "_static").iterdir()}
    assert drawn_ == {path.name for path in (ROOT / "docs" / "_static").glob("study-*.png")}
    for name in drawn_:
        path = Path("docs", "_static", name)
        with Image.open(tmp_path / path) as new, Image.open(ROOT / path) as old:
            assert new.size == old.size
            assert not new.info.keys() - {"transparency"}
        assert (tmp_path / path).stat().st_size < 200_000


def test_the_raw_logs_are_those_of_the_study():
    runs = {run.name: run for run in study.Report().planned}
    paths = list(FOLDER.glob("loss=*.jsonl"))
    assert {path.stem for path in paths} == set(runs)
    for path in paths:
        found = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
        assert found["settings"] == runs[path.stem].settings
        assert found["options"][:-1] == protocol.OPTIONS.split()
        assert found["configuration"]["iterations"] == protocol.ITERATIONS


def test_the_page_includes_all_tables_and_pictures():
    page = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^```{include} _study/(.+)\.md\n```$", page, re.MULTILINE)) == sorted(tables.TABLES)
    assert sorted(re.findall(r"\]\(_static/study-(.+)\.png\)", page)) == sorted(pictures.PICTURES)


def swap(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda log: log.replace(old, new)


OF_KIND = ", line 2: expected the entries of a kind of lines, got {'kind': 'trainings'"
OF_KINDS = ": expected one run, and an evaluation at its end unless it diverged"


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (LOG, swap(b"}\n", b"\n"), ", line 1: expected JSON"),
        (LOG, lambda log: log[:-9], ": expected JSON"),
        (LOG, swap(b'"evaluation"', b'"training"'), OF_KINDS),
        (LOG, lambda log: log.rpartition(b'{"kind": "evaluation", "iteration": 2000')[0], OF_KINDS),
        (LOG, swap(b'"training"', b'"trainings"'), OF_KIND),
        (LOG, swap(b'"iteration": 1,', b'"at": 1,'), OF_KIND.replace("trainings", "training")),
        ("costs.jsonl", swap(b"}\n", b"\n"), ", line 1: expected JSON"),
        ("costs.jsonl", swap(b'"milliseconds"', b'"ms"'), ", line 1: expected an object with settings (dict), milli"),
        ("floor.json", swap(b"}\n", b"\n"), ": expected JSON"),
        (LOG, None, " are missing in "),
        (LOG.replace("seed=0", "seed=2"), None, "1 files are missing in "),
        ("costs.jsonl", None, "1 files are missing in "),
        ("floor.json", None, "1 files are missing in "),
    ],
)
def test_a_report_is_refused_if_a_log_is_damaged_or_missing(
    name: str, damage: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    raw, readme = shutil.copytree(FOLDER, tmp_path / "raw"), tmp_path / "README.md"
    readme.write_text(PLACE, encoding="utf-8")
    if damage:
        (raw / name).write_bytes(damage((raw / name).read_bytes()))
    else:
        (raw / name).unlink()
    assert study.main(["report", f"--raw={raw}", f"--root={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert name in error
    assert readme.read_text(encoding="utf-8") == PLACE
    assert not (tmp_path / "docs").exists()


def test_tables_are_written_without_what_draws_if_the_readme_has_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    words = ["report", f"--root={tmp_path}"]
    assert study.main(words) == 2
    assert "README.md" in capsys.readouterr().err
    (tmp_path / "README.md").write_text("# Name\n", encoding="utf-8")
    assert study.main(words) == 2
    assert "expected one place for the table of the study, got 0" in capsys.readouterr().err
    (tmp_path / "README.md").write_text(PLACE, encoding="utf-8")
    monkeypatch.setattr(training, "find_spec", lambda name: None)
    assert refusal(capsys, lambda: study.main(words)).startswith("Not installed: matplotlib. ")
    assert "| mmd-rep | 0.0005 / 0.002 | 2.92 " in (tmp_path / "README.md").read_text(encoding="utf-8")


# The command, with stubs in place of the training and of the evaluation


class Stub:
    """A small study, by stubs."""

    def __init__(self, folder: Path):
        self.out, self.raw, self.features = folder / "runs", folder / "raw", folder / "classifier.pt"
        (folder / "dcgan_fashion_mnist.py").write_text(TRAIN, encoding="utf-8")
        (folder / "evaluate.py").write_text(EVALUATE, encoding="utf-8")
        self.features.touch()

    def do(self, action: str, *words: str) -> int:
        return study.main([action, f"--raw={self.raw}", f"--out={self.out}", *words])

    def names(self) -> set[str]:
        return {path.stem for path in self.raw.glob("*.jsonl")}


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    questions = {
        "losses": [setting("hinge"), setting("mmd-rep")],
        "updates": [setting("mmd-rep"), setting("mmd-rep", updates="alternating")],
    }
    monkeypatch.setattr(protocol, "QUESTIONS", {name: [] for name in protocol.QUESTIONS} | questions)
    # With the second one, the stub of hinge diverges.
    monkeypatch.setattr(protocol, "PAIRS", (("0.001", "0.0001"), ("0.001", "0.001")))
    monkeypatch.setattr(protocol, "OPTIONS", "--iterations=3")
    monkeypatch.setattr(protocol, "ITERATIONS", 3)
    monkeypatch.setattr(study, "EXAMPLES", tmp_path)
    return Stub(tmp_path)


def test_what_cannot_be_measured_is_refused_before_it_is_trained(stub: Stub, capsys: pytest.CaptureFixture[str]):
    assert stub.do("run", "--features=x.pt") == 2
    assert "--features: there is no x.pt; examples/classifier.py makes it" in capsys.readouterr().err
    assert not stub.out.exists()


def test_no_samples_are_kept_before_the_best_pair_is_known(stub: Stub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sweeps, "tuning", SimpleNamespace(do=lambda recipe, runs: 1), raising=False)
    samples = stub.out / Run(setting("hinge"), protocol.PAIRS[0], 0).name / "samples" / "iteration-00000003.png"
    samples.parent.mkdir(parents=True)
    samples.touch()
    assert stub.do("run", f"--features={stub.features}") == 1
    assert not stub.raw.exists()


@pytest.mark.paper
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_study_runs_the_grid_then_the_best_and_repeats_nothing(stub: Stub, capsys: pytest.CaptureFixture[str]):
    assert stub.do("list") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "4 missing"
    words = ["run", f"--features={stub.features}"]
    # No pair is chosen until all pairs have finished.
    taken = stub.out / Run(setting("mmd-rep"), protocol.PAIRS[0], 0).name
    taken.mkdir(parents=True)
    with FileLock(taken / "training.lock"):
        assert stub.do(*words) == 1
    assert len(stub.names()) == 3
    assert stub.do(*words) == 0
    shown = capsys.readouterr().out
    said = [line for line in shown.splitlines() if line.endswith(" to do, 2 at a time")]
    # Those of the grid; then the last of them, and the other seeds of the loss whose grid is complete; then the rest.
    assert said == [f"{count} to do, 2 at a time" for count in (4, 3, 5)]
    assert {json.loads(path.read_text())[1] for path in stub.out.glob("*/environment")} == {""}  # all on CPUs
    rates = "lr-discriminator=0.001,lr-generator="
    grid = {f"loss={loss},{rates}{rate},seed=0" for loss in ("hinge", "mmd-rep") for rate in ("0.0001", "0.001")}
    settings = ("loss=hinge", "loss=mmd-rep", "loss=mmd-rep,updates=alternating")
    best = {"hinge": "0.0001", "mmd-rep": "0.001"}
    assert stub.names() == grid | {
        f"{each},{rates}{best[each.split(',')[0][5:]]},seed={seed}" for each in settings for seed in (0, 1, 2)
    }
    assert {path.stem for path in (stub.raw / "sheets").glob("*")} == {
        f"loss={loss},{rates}{best[loss]},seed=0" for loss in best
    }
    before = {path: path.read_bytes() for path in stub.raw.rglob("*.*")}
    # What is done but not exported is not done again, and whoever has the raw logs alone repeats nothing either.
    traces = {path: path.read_text() for path in stub.out.glob("*/trace")}
    for path in list(stub.raw.glob("*.jsonl"))[::2]:
        path.unlink()
    assert stub.do(*words) == 0
    assert {path: path.read_text() for path in stub.out.glob("*/trace")} == traces
    shutil.rmtree(stub.out)
    assert stub.do(*words) == 0
    assert not stub.out.exists()
    assert {path: path.read_bytes() for path in stub.raw.rglob("*.*")} == before
    assert stub.do("list") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "11 done"
