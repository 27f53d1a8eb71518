"""The study of trainings without a discriminator: what it runs, what it keeps of it, and what it says."""

from __future__ import annotations

import itertools
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import study_one_step as study
import torch
from classifier import Classifier, save
from filelock import FileLock
from one_step import clock
from one_step import presets as of_one_step
from PIL import Image
from studies import one_step as plan
from studies import one_step_pictures, one_step_tables, reference_cost
from studies.logs import Raw, portable
from studies.logs import read as read_log
from studies.one_step import Trial
from training.errors import RefusedError
from training.files import read_lines
from training.settings import read
from wang2019 import presets as of_wang2019

pytestmark = pytest.mark.xdist_group("processes")

ROOT = Path(__file__).parents[2]
SCRIPTS = {"one_step": of_one_step, "wang2019": of_wang2019}


# What is run


def settings_of(trial: Trial) -> Any:
    script = SCRIPTS[plan.ARMS[trial.arm].script]
    words = plan.words(trial, 5.0, out=Path("run"), data_root=Path("data"))
    return script.resolved(read(script.PRESETS, "x", words))


def test_the_scripts_know_all_runs_and_no_two_are_the_same_training():
    runs = plan.planned()
    settings = [settings_of(trial) for trial in runs]
    assert len(set(map(str, settings))) == len({trial.name for trial in runs}) == len(runs) == 72
    assert {(each.dataset, each.cpu_seconds, each.resume, each.device) for each in settings} == {
        ("fashion-mnist", 5.0, "auto", "cpu")
    }


def test_what_is_done_at_any_time_is_comparable():
    seeds = [trial.seed for trial in plan.planned()]
    assert seeds == sorted(seeds)
    for seed in plan.SEEDS:
        assert [trial.arm for trial in plan.planned() if trial.seed == seed] == list(plan.ARMS)
    assert all(arm.seconds[0] == plan.SECONDS for arm in plan.ARMS.values())
    assert all(each % int(str(plan.WRITTEN["keep-every"])) == 0 for each in plan.MEASURED)


def test_all_arms_have_the_same_generator_and_the_arms_of_a_question_differ_in_one_thing():
    found = {arm: settings_of(Trial(arm, 0)) for arm in plan.ARMS}
    widths = {arm: each.one_step_width if arm in ("hinge", "mmd-rep") else each.width for arm, each in found.items()}
    assert set(widths.values()) == {16}
    assert {each.noise for each in found.values()} == {32}
    assert {each.ema_decay for each in found.values()} == {0.99}

    def differing(one: str, other: str) -> set[str]:
        first, second = vars(found[one]), vars(found[other])
        return {name for name in first if first[name] != second[name]}

    for name, size in {"batch-64": 64, "batch-1024": 1024, "batch-4096": 4096}.items():
        assert differing(name, "nystroem-1024") == {"batch_size"}
        assert found[name].batch_size == size
    assert differing("nystroem-256", "nystroem-1024") == {"landmarks"}
    for name in ("exact", "nystroem-1024", "nystroem-256", "resampled"):
        assert differing(name, f"{name}-quarter") == {"factor"}
    for name in ("exact", "fourier", "nystroem-1024"):
        assert differing(name, "resampled") <= {"reference", "landmarks"}
    assert differing("drift", "resampled") == {"loss"}
    assert differing("three-encoders", "resampled") == {"encoder", "balance"}
    assert differing("unbiased", "resampled") == {"estimator"}
    for name in ("laplace", "matern", "energy"):
        assert differing(name, "resampled") == {"kernel"}
    for name in ("guidance-1.5", "guidance-2"):
        assert differing(name, "classes") == {"guidance"}


def test_no_arm_learns_from_a_trained_classifier_which_would_be_near_to_the_judge():
    encoders = {each for arm in plan.ARMS.values() for each in arm.options.get("encoder", [plan.ENCODER])}
    assert {each.partition(":")[0] for each in encoders} == {"random", "pixels"}


# Tables


def line(fid: float, iteration: int, seconds: float, **more: float) -> dict[str, Any]:
    whole = {"kid_mean": fid / 100, "fid_of_encoder": 10 * fid} if more.pop("whole", True) else {}
    numbers = {"fid": fid, "class_coverage": 0.9, "class_entropy": 2.25, **whole, **more}
    at = {"kind": "evaluation", "iteration": iteration, "cpu_seconds": seconds}
    return {**at, "metrics": numbers, "class_shares": [0.1] * 10}


def write(raw: Raw, arm: str, seed: int, *lines: dict[str, Any]) -> None:
    about = {"kind": "run", "settings": {}, "status": "finished" if lines else "diverged"}
    raw.path.mkdir(exist_ok=True)
    text = "".join(json.dumps(each) + "\n" for each in (about, *lines))
    raw.log(Trial(arm, seed)).write_text(text, encoding="utf-8")


def rows(table: str) -> dict[str, dict[str, str]]:
    """Return the cells of a table, by their first and by their heading."""
    head, _, *lines = [[cell.strip() for cell in each.strip("|\n").split(" | ")] for each in table.splitlines()]
    return {cells[0]: dict(zip(head, cells, strict=True)) for cells in lines}


@pytest.fixture
def raw(tmp_path: Path) -> Raw:
    return Raw(tmp_path / "raw")


def test_arms_are_compared_at_equal_time_and_after_equally_many_steps(raw: Raw):
    # The last is 181 s after the start, and not at equal time.
    for seed, fid in enumerate((8.0, 10.0)):
        write(raw, "exact", seed, line(20.0, 150, 65.0, whole=0), line(fid, 210, 90.5), line(3.0, 420, 181.0))
    ends = [line(6.0, 150, 15.0, whole=0), line(5.0, 300, 30.0, whole=0), line(2.0, 1000, 90.0)]
    for seed in plan.SEEDS:
        write(raw, "resampled", seed, *ends[0 if seed else 1 :])
    found = rows(one_step_tables.TABLES["references"](raw))
    exact, resampled = found["exact"], found["resampled, 256"]
    assert exact["FD after 90 s"] == "-"  # that of a quarter of the median, which comes last
    first = one_step_tables.TABLES["references"](raw).splitlines()[2]
    cells = [cell.strip() for cell in first.strip("|").split(" | ")]
    expected = ["exact", "median", "210 ± 0", "431 ± 0", "9.00 ± 1.41", "0.0900 ± 0.0141", "90.00 ± 14.14", "9.0 ± 0.0"]
    assert cells[:8] == expected
    assert cells[-3:] == ["20.00 ± 0.00", "-", "2 of 3"]
    assert resampled["seeds"] == "0 of 3"
    fid_of_resampled = one_step_tables.TABLES["references"](raw).splitlines()[6]
    assert "2.00 ± 0.00" in fid_of_resampled
    assert "| 6.00 ± 0.00 (2 of 3) | 5.00 ± 0.00 | 3 |" in fid_of_resampled


def test_tables_say_what_diverged_and_what_is_open_and_have_the_floor(raw: Raw):
    write(raw, "classes", 0, line(4.0, 900, 90.1, agreement=0.75))
    write(raw, "classes", 1)
    found = rows(one_step_tables.TABLES["guidance"](raw))
    assert found["1"]["seeds"] == "2 of 3, 1 diverged"
    assert found["1"]["of the class asked for"] == "75.0 %"
    assert found["2"]["seeds"] == "0 of 3"
    assert found["2"]["FD after 90 s"] == found["2"]["steps"] == found["2"]["of the class asked for"] == "-"
    assert "real images" not in found
    floor = line(0.06, 0, 0.0, agreement=0.9) | {"provenance": {}}
    (raw.path / one_step_tables.FLOOR).write_text(json.dumps(floor) + "\n", encoding="utf-8")
    real = rows(one_step_tables.TABLES["guidance"](raw))["real images"]
    assert [real["FD after 90 s"], real["of the class asked for"], real["steps"]] == ["0.0600", "90.0 %", "-"]


def test_all_arms_are_in_a_table(raw: Raw, monkeypatch: pytest.MonkeyPatch):
    asked = set()
    monkeypatch.setattr(one_step_tables, "over_seeds", lambda raw, arm: asked.add(arm) or [])
    for table in one_step_tables.TABLES.values():
        table(raw)
    assert asked == set(plan.ARMS)


def test_a_damaged_log_is_refused_by_its_name(raw: Raw):
    write(raw, "exact", 0, line(8.0, 210, 90.5))
    path = raw.log(Trial("exact", 0))
    path.write_text(path.read_text()[:-9], encoding="utf-8")
    with pytest.raises(RefusedError, match="exact,seed=0.*: expected JSON"):
        one_step_tables.TABLES["references"](raw)


# Pictures


def test_curves_have_a_line_for_each_seed_and_samples_a_row_for_each_arm(raw: Raw):
    figures = pytest.importorskip("matplotlib.figure")
    for seed in (0, 2):
        write(raw, "exact", seed, line(8.0, 210, 90.5), line(20.0, 200, 88.0), line(3.0, 420, 201.0))
    figure = figures.Figure()
    one_step_pictures.curves(figure, raw)
    by_time, by_step, *quarter = figure.axes
    assert [len(axes.lines) for axes in (by_time, by_step, *quarter)] == [2, 2, 0, 0]
    assert list(by_time.lines[0].get_xdata()) == [88.0, 90.5, 201.0]
    assert list(by_step.lines[1].get_xdata()) == [200, 210, 420]
    assert list(by_step.lines[1].get_ydata()) == [20, 8, 3]
    sheet = raw.sheet(Trial("exact", 0))
    sheet.parent.mkdir()
    Image.new("L", (8 * 36, 8 * 36), 77).save(sheet)
    figure = figures.Figure()
    one_step_pictures.samples(figure, raw)
    (image,) = figure.axes[0].images
    pixels = image.get_array()
    assert pixels.shape == (36 * len(plan.ARMS), 36 * one_step_pictures.COLUMNS)
    assert (pixels[:36] == 77).all()
    assert (pixels[36:] == 255).all()


# The command, on generated images


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the command of a small study of generated images, of which each step takes a second."""
    torch.manual_seed(0)
    save(tmp_path / "unseen.pt", Classifier(size=32, channels=3, classes=4), {"test_accuracy": 0.25})
    few = {"learnt": 100, "held-out": 20, "batch-size": 8, "micro-batch": 8, "width": 2, "self-rows": 50}
    written = {**plan.WRITTEN, "checkpoint-every": 1, "keep-every": 2, "log-every": 1}
    arms = {
        "exact": plan.Arm({}, (3.0, 5.0)),
        "classes": plan.Arm({"conditional": True}, (3.0,)),
        "hinge": plan.Arm({**written, "loss": "hinge", "batch-size": 4}, (3.0,), script="wang2019"),
        "fast": plan.Arm({"lr": 1e30}, (3.0,)),
    }
    monkeypatch.setattr(plan, "PRESET", "fake")
    monkeypatch.setattr(plan, "COMMON", {**written, **few})
    monkeypatch.setattr(plan, "ARMS", arms)
    monkeypatch.setattr(plan, "SEEDS", (0,))
    monkeypatch.setattr(plan, "MEASURED", (2, 4))
    monkeypatch.setattr(plan, "IMAGES", 100)
    seconds = itertools.count()
    monkeypatch.setattr(clock.time, "process_time", lambda: next(seconds))
    where = {"unseen": tmp_path / "unseen.pt", "raw": tmp_path / "raw", "out": tmp_path / "out"}
    return ["run", *(f"--{name}={path}" for name, path in where.items())]


def told(path: Path) -> list[dict[str, Any]]:
    """Return what a raw log says but the circumstances."""
    lines = read_lines(path)
    return [{**each, "iterations_per_second": 0, "date": 0} for each in lines]


@pytest.mark.slow
def test_a_rehearsal_trains_measures_and_repeats_nothing(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    raw = tmp_path / "raw"
    assert study.main(command) == 0
    record, evaluations, training = read_log(raw / "exact,seed=0.jsonl")
    assert record["status"] == "finished"
    assert [each["iteration"] for each in training] == [1, 2, 3, 4, 5]
    assert {at: each["cpu_seconds"] for at, each in evaluations.items()} == {2: 2, 3: 3, 4: 4, 5: 5}
    assert ["kid_mean" in each["metrics"] for each in evaluations.values()] == [False, True, False, True]
    assert "agreement" not in evaluations[5]["metrics"]
    *_, last = read_log(raw / "classes,seed=0.jsonl").evaluations.values()
    assert 0 <= last["metrics"]["agreement"] <= 1
    adversarial = read_log(raw / "hinge,seed=0.jsonl").evaluations.values()
    assert [each["cpu_seconds"] for each in adversarial] == [2, 3]
    assert read_log(raw / "fast,seed=0.jsonl").diverged
    about = told(raw / "exact,seed=0.jsonl")[0]
    assert about["unseen"]["origin"] == {"test_accuracy": 0.25}
    assert about["configuration"]["learnt"] == 100
    assert (raw / "sheets" / "exact,seed=0.png").exists()
    floor = read_lines(raw / one_step_tables.FLOOR)[0]["metrics"]
    assert floor["fid"] < evaluations[5]["metrics"]["fid"]

    # Without a raw log, it is made again of what was measured; with it, nothing is done.
    before = {path: path.read_bytes() for path in raw.rglob("*.*")}
    said = told(raw / "exact,seed=0.jsonl")
    (raw / "exact,seed=0.jsonl").unlink()
    capsys.readouterr()
    assert study.main(command) == 0
    assert capsys.readouterr().out == "exact,seed=0, 1 of 4\n"
    assert told(raw / "exact,seed=0.jsonl") == said
    assert {path for path in raw.rglob("*.*") if path.read_bytes() != before[path]} <= {raw / "exact,seed=0.jsonl"}
    assert study.main(["list", command[2]]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "4 done, 0 missing"


@pytest.mark.slow
def test_a_study_goes_on_where_it_was_and_leaves_to_others_what_they_do(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from studies.measures import Judge

    measure, calls = Judge.checkpoint, []

    def broken(judge: Judge, path: Path, *, whole: bool) -> dict[str, Any]:
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(judge, path, whole=whole)

    log = tmp_path / "raw" / "exact,seed=0.jsonl"
    words = [*command, "--arms", "exact"]
    monkeypatch.setattr(Judge, "checkpoint", broken)
    with pytest.raises(KeyboardInterrupt):
        study.main(words)
    assert not log.exists()
    with FileLock(tmp_path / "out" / "locks" / "exact,seed=0.lock"):
        assert study.main(words) == 1
    assert not log.exists()
    assert study.main(words) == 0
    _, evaluations, training = read_log(log)
    assert [each["iteration"] for each in training] == [1, 2, 3, 4, 5]
    assert list(evaluations) == [2, 3, 4, 5]
    # No checkpoint was measured twice, but for the one that was broken off.
    assert len(calls) == len(set(calls)) + 1 == 5


def test_a_study_without_a_judge_is_refused(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "unseen.pt").unlink()
    assert study.main(command) == 2
    assert "unseen.pt; examples/classifier.py makes it" in capsys.readouterr().err
    assert study.main(["report", f"--raw={tmp_path}"]) == 2
    assert "--raw: there are no raw logs of runs in" in capsys.readouterr().err


def test_an_arm_that_is_not_in_the_plan_is_refused(command: list[str], capsys: pytest.CaptureFixture[str]):
    assert study.main([*command, "--arms", "exact", "exactt"]) == 2
    assert "--arms: expected some of exact, classes, hinge, fast, got exactt" in capsys.readouterr().err


@pytest.mark.slow
def test_a_pilot_has_its_own_seeds_and_time(command: list[str], tmp_path: Path):
    assert study.main([*command, "--arms", "exact", "--seeds", "100", "--seconds", "1"]) == 0
    assert list(read_log(tmp_path / "raw" / "exact,seed=100.jsonl").evaluations) == [1]


def test_a_training_that_fails_does_not_end_the_study_but_a_signal_does(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(plan.ARMS, "exact", plan.Arm({"held-out": 1000}))
    assert study.main([*command, "--arms", "exact", "fast"]) == 1
    assert "exact,seed=0 failed: 2" in capsys.readouterr().err
    assert {path.stem for path in (tmp_path / "raw").glob("*,seed=*")} == {"fast,seed=0"}

    def stopped(*_: Any) -> None:
        sys.exit(143)

    monkeypatch.setattr(study, "train", stopped)
    with pytest.raises(SystemExit, match="^143$"):
        study.main([*command, "--arms", "exact", "fast"])


def test_a_report_is_made_of_few_logs(raw: Raw, tmp_path: Path):
    write(raw, "resampled", 0, line(8.0, 1000, 90.5))
    pytest.importorskip("PIL.Image")
    assert study.main(["report", f"--raw={raw.path}", f"--root={tmp_path}"]) == 0
    written = tmp_path / "docs" / "_study_one_step"
    assert {path.stem for path in written.iterdir()} == set(one_step_tables.TABLES)
    assert "| 8.00 | 0.0800 | 80.00 | 9.0 | 2.250 |" in (written / "references.md").read_text(encoding="utf-8")
    pictures = (tmp_path / "docs" / "_static").glob("one-step-study-*.png")
    assert {path.stem.removeprefix("one-step-study-") for path in pictures} == set(one_step_pictures.PICTURES)


def test_the_page_includes_all_tables_and_pictures():
    page = (ROOT / "docs" / "one_step_study.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^```{include} _study_one_step/(.+)\.md\n```$", page, re.MULTILINE)) == sorted(
        one_step_tables.TABLES
    )
    assert sorted(re.findall(r"\]\(_static/one-step-study-(.+)\.png\)", page)) == sorted(one_step_pictures.PICTURES)


def test_the_tables_of_the_page_are_those_of_the_raw_logs():
    raw = study.Report().logs
    written = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "_study_one_step").iterdir()}
    assert written == {name: table(raw) for name, table in one_step_tables.TABLES.items()}


def test_the_raw_logs_are_those_of_the_plan():
    names = {trial.name: trial for trial in plan.planned()}
    for path in study.Report().raw.glob("*,seed=*.jsonl"):
        about = read_lines(path)[0]
        assert about["settings"] == json.loads(json.dumps(plan.options(names[path.stem])))


def test_the_roofline_is_that_of_the_benchmarks():
    text = (ROOT / "examples" / "benchmarks" / "roofline.py").read_text(encoding="utf-8")
    assert float(re.search(r"^BANDWIDTH = (\S+)$", text, re.MULTILINE)[1]) == reference_cost.BANDWIDTH
    assert float(re.search(r"^PEAK_CONVOLUTION, PEAK = \S+, (\S+)$", text, re.MULTILINE)[1]) == reference_cost.PEAK


def test_the_cost_of_a_reference_is_that_of_its_products_and_of_its_kernel_values():
    # 4 B N d FLOP of an exact reference, and its rows in float32, as in modern-mmd.md.
    setting = reference_cost.SETTINGS["RDM, ImageNet-256"]
    by_hand = 4 * setting.batch * setting.dimensions * (setting.rows + setting.batch) / reference_cost.PEAK
    kernel = 8 * setting.batch * (setting.rows + setting.batch) * 10 / reference_cost.BANDWIDTH
    one, eight = (reference_cost.seconds(setting, "exact", gpus) for gpus in (1, 8))
    assert one == pytest.approx(by_hand + kernel)
    assert eight == pytest.approx(one / 8)
    assert reference_cost.gigabytes(setting, "exact", 8) == pytest.approx(8.4, rel=0.01)
    assert reference_cost.seconds(setting, "Nyström", 1) < one / 100
    # Few features: the bytes decide.
    narrow = setting._replace(dimensions=10)
    entries = setting.batch * setting.rows * 10
    assert reference_cost.pairs(setting.batch, setting.rows, 10, 10) == pytest.approx(
        (2 * 4 * (entries + (setting.batch + setting.rows) * 10) + 8 * entries) / reference_cost.BANDWIDTH
    )
    assert reference_cost.seconds(narrow, "exact", 1) < one


# What a raw log says of its run


def test_paths_are_relative_to_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = {
        "configuration": {"data_root": f"{tmp_path}/data"},
        "command": f"run --out {tmp_path}/runs --unseen /judge.pt",
    }
    expected = {"configuration": {"data_root": "data"}, "command": "run --out runs --unseen /judge.pt"}
    assert portable(line) == expected


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples" / "studies" / "one_step").glob("**/*.jsonl")), ids=lambda path: path.stem
)
def test_the_logs_have_their_own_seed_and_no_paths_of_a_machine(path):
    text = path.read_text(encoding="utf-8")
    first = json.loads(text.partition("\n")[0])
    if first.get("kind") == "run":
        assert path.stem == f"{first['arm']},seed={first['seed']}"
        assert first["seed"] == first["settings"]["seed"] == first["configuration"]["seed"]
    assert not re.findall(r"[\" ](/(?:tmp|home|root|work|Users)/\S*)", text)
