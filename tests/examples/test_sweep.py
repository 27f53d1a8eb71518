"""Sweeps: which runs there are, that each is done once whatever happens to the processes, and what came of them."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import sweep
import training
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from stubs import EVALUATE, TRAIN
from sweeps import tables
from sweeps.runs import SWEEPS, Recipe, Run, evaluations, plan, record, text, understood, write
from sweeps.tables import Result
from trained import refusal
from training.settings import read
from wang2019 import losses
from wang2019.presets import PRESETS, resolved

pytestmark = pytest.mark.xdist_group("processes")

EXAMPLES = Path(__file__).parents[2] / "examples"
PAIRS = "--pairs=1e-4/1e-4,1e-4/1e-3"


class Stub:
    """A sweep with stubs in place of the training and the evaluation."""

    def __init__(self, folder: Path):
        self.out, self.script = folder / "sweep", folder / "train.py"
        self.script.write_text(TRAIN, encoding="utf-8")
        self.script.with_name("evaluate.py").write_text(EVALUATE, encoding="utf-8")

    def words(self, *words: str) -> list[str]:
        own = [f"--out={self.out}", f"--script={self.script}", PAIRS, "--jobs=2"]
        return ["run", "table1", *own, *words]

    def run(self, *words: str) -> int:
        return sweep.main(self.words(*words))

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a sweep that leads a group of processes of its own."""
        command = [sys.executable, str(EXAMPLES / "sweep.py"), *self.words(*words)]
        to: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
        return subprocess.Popen(command, **to)

    def traces(self) -> dict[str, list[int]]:
        """The iterations that were done in each run, in their order."""
        return {path.parent.name: [int(line) for line in path.read_text().split()] for path in self.out.glob("*/trace")}

    def statuses(self) -> dict[str, str]:
        return {path.parent.name: record(path.parent)["status"] for path in self.out.glob("*/run.json")}

    def recipe(self, **options: object) -> Recipe:
        return Recipe("table1", self.out, self.script, **options)  # type: ignore[arg-type]


@pytest.fixture
def stub(tmp_path: Path) -> Stub:
    return Stub(tmp_path)


def wait_for(condition: Callable[[], object], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Return whether a process runs; what is left of one that nobody waits for has no command line."""
    path = Path(f"/proc/{pid}/cmdline")
    return path.exists() and path.read_bytes() != b""


# Which runs there are


def test_the_sweeps_are_those_of_the_paper():
    assert {name: len(plan(each, {})) for name, each in SWEEPS.items()} == {
        "table1": 7 * 16,
        "lambda": 2 * 6 * 16,
        "constant": 4 * (5 + 1) * 16,
        "scores": 5 * 5 * 16,
    }
    others = {"minimax", "wasserstein", "smmd"}
    assert {run.settings["loss"] for run in plan(SWEEPS["table1"], {})} == {*losses.NAMES} - others


@pytest.mark.parametrize("name", SWEEPS)
def test_the_training_script_knows_all_settings_of_a_sweep(name: str):
    runs = plan(SWEEPS[name], {}, [(1e-4, 1e-3)], [3])
    commands = [Recipe(name, Path("out"), Path("script.py")).training(run)[2:] for run in runs]
    configurations = {resolved(read(PRESETS, "Train.", ["cifar10", *command])) for command in commands}
    # Different names stand for different trainings.
    assert len(configurations) == len(runs) == len({run.name for run in runs})
    assert {(each.seed, each.lr_discriminator, each.lr_generator) for each in configurations} == {(3, 1e-4, 1e-3)}


def test_the_name_of_a_run_says_its_settings_however_they_were_written():
    name = "loss=mmd-rep,lambda=-0.5,ema-decay=0.99,width=8,lr-discriminator=0.0001,lr-generator=0.001,seed=2"
    for vary in (
        {"loss": ("mmd-rep",), "lambda": ("-.5",), "width": ("8",), "ema-decay": (0.99,)},
        {"ema-decay": ("9.9e-1",), "width": (8.0,), "lambda": (-0.5,), "loss": ("mmd-rep",)},
    ):
        (run,) = plan(SWEEPS["lambda"], vary, [("1e-4", 1e-3)], [2])
        assert run.name == name
    assert run == Run.of(run.settings)
    assert run._replace(group=(("data-root", "../data"),)).name.startswith("data-root=.._data,lr-discriminator=0.0001,")
    assert run.group == (("loss", "mmd-rep"), ("lambda", "-0.5"), ("ema-decay", "0.99"), ("width", "8"))


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**40), 2**40))
def test_the_text_of_a_number_is_one_and_exact(number: float):
    assert float(text(number)) == number
    assert text(text(number)) == text(number) == text(f"{number!r}") == text(f"{number:.25e}")


def test_values_in_place_of_a_sweeps_leave_no_run_twice_and_may_leave_an_option_out():
    runs = plan(SWEEPS["constant"], {"normalisation": ("pico",), "total-scale": (64,)}, [(1, 2)])
    assert [run.name for run in runs] == [
        f"loss={loss},normalisation=pico,total-scale=64,lr-discriminator=1,lr-generator=2,seed=0"
        for loss in ("hinge", "mmd-rbf", "mmd-rep", "mmd-rep-b")
    ]
    runs = plan(SWEEPS["scores"], {"total-scale": ()}, [(1, 2)])
    assert [dict(run.group) for run in runs] == [{"loss": "mmd-rep", "scores": str(d)} for d in (1, 4, 16, 64, 256)]


def test_the_shares_of_an_array_are_all_runs_each_once(stub: Stub, capsys: pytest.CaptureFixture[str]):
    names = []
    for index in range(5):
        assert sweep.main(["list", *stub.words("--pairs=", f"--share={index}/5")[1:]]) == 0
        *lines, counted = capsys.readouterr().out.splitlines()
        assert counted in ("22 runs: 22 missing", "23 runs: 23 missing")
        names += [line.split()[-1] for line in lines]
    assert sorted(names) == sorted(run.name for run in plan(SWEEPS["table1"], {}))
    assert not stub.out.exists()


def test_a_sweep_is_listed_without_waiting_for_pytorch():
    # Ray's processes import the same modules.
    code = "import sys, sweep; sweep.main(['list', 'table1', '--out=/nowhere']); print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=EXAMPLES, capture_output=True, text=True, check=False)
    assert ended.stdout.split()[-1:] == ["False"], ended.stderr


def test_a_share_leaves_no_records_of_the_runs_of_others(stub: Stub):
    # Else copies of the folders of several machines would replace finished runs by missing ones.
    words = stub.words("--pairs=1/2", "--losses=hinge", "--share=1/2")
    assert sweep.main(words) == 0
    assert stub.statuses() == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pairs=1e-4"], "expected best, or pairs such as 5e-4/2e-4, got 1e-4"),
        (["--pairs=best"], "best: there are no settings with a result for all pairs of their first seed"),
        (["--seeds=-1"], "--seeds: expected whole numbers >= 0, got -1"),
        (["--seeds=x"], "--seeds: expected whole numbers >= 0, got x"),
        (["--losses=,hinge"], "--losses: expected LOSS,..., got ,hinge"),
        (["--vary=seed=1,2"], "--seed is set by the sweep"),
        (["--vary=width"], "--vary: expected OPTION=VALUE,..., got width"),
        (["--share=2/2"], "--share: expected I/N with I from 0 to N - 1, got 2/2"),
        (["--script=dcgan_mnist"], "can't open file "),
        (["--", "--seed=3"], "--seed is set by the sweep"),
        (["--", "--dry_run"], "--dry-run is set by the sweep"),
        (["--vary=lr_generator=1"], "--lr-generator is set by the sweep"),
        (["--", "--loss", "hinge"], "--loss is set by the sweep"),
        (["--vary=width=2,4", "--", "--width", "8"], "--width is set by the sweep"),
        (["--", "--refuse"], "train.py refuses loss=hinge,lr-discriminator=0.0001,lr-generator=0.0001,seed=0: stub"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_done(
    words: list[str], message: str, stub: Stub, capsys: pytest.CaptureFixture[str]
):
    assert stub.run(*([] if "--losses" in words[0] else ["--losses=hinge"]), *words) == 2
    assert message in capsys.readouterr().err
    assert not stub.out.exists()


def test_a_sweep_says_at_once_what_it_will_do_and_where(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def interrupted(*_: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", interrupted)  # the first thing that takes seconds
    assert stub.run("--losses=hinge") == 1
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        f"2 runs: 2 missing; by train.py on this machine, in {stub.out}",
        "Checking the settings with train.py",
    ]
    assert shown.err == "sweep.py: interrupted before a run was started\n"
    assert not stub.out.exists()


def test_each_grid_of_a_sweep_is_checked_before_anything_is_done(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def refused(command: list[str], **_: object) -> SimpleNamespace:
        of_second_grid = "--normalisation=matrix" in command
        return SimpleNamespace(returncode=2 * of_second_grid, stderr="of the second grid")

    monkeypatch.setattr(subprocess, "run", refused)
    assert sweep.main(["run", "constant", f"--out={stub.out}", f"--script={stub.script}"]) == 2
    assert "of the second grid" in capsys.readouterr().err
    assert not stub.out.exists()


def test_a_sweep_needs_ray_only_if_there_is_something_to_do(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(training, "find_spec", lambda name: None)
    finish(stub, hinge=20)
    assert stub.run("--losses=hinge") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"2 runs: 2 finished; by train.py on this machine, in {stub.out}",
        "Checking the settings with train.py",
    ]
    assert "Not installed: ray. " in refusal(capsys, lambda: stub.run("--losses=mmd-rep"))


# How a run ended


@pytest.mark.parametrize("ended", [1, 2, -9])
def test_only_the_scripts_own_words_are_a_divergence(ended: int):
    words = "Stopped at iteration 1,007, where loss_generator is inf. Try"
    found = understood({}, ended, f"iteration 5 of 9: loss\n{words}\n", 5)
    assert found["status"] == ("diverged" if ended == 1 else "failed")
    assert found["iteration"] == (1007 if ended == 1 else 5)
    assert understood({}, 1, f"Traceback\n  print({words!r})\nKeyError", 5)["status"] == "failed"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_training_that_a_signal_stopped_has_not_ended(number: int):
    assert understood({"status": "missing"}, 128 + number, "Interrupted", 5) == {"status": "missing", "iteration": 5}


RUN = plan(SWEEPS["table1"], {"loss": ("hinge",)}, [(1, 2)])[0]


def test_a_run_is_done_if_its_record_says_so_of_the_same_options(stub: Stub):
    recipe = stub.recipe(options=("--width=8",))
    assert not recipe.is_done(RUN)
    for status_, again, done in (
        ("missing", False, False),
        ("failed", False, False),
        ("finished", False, True),
        ("diverged", False, True),
        ("diverged", True, False),
        ("stopped", False, True),
        ("stopped", True, False),
    ):
        write(stub.out / RUN.name, {**recipe.fresh(RUN), "status": status_, "evaluated": "--all"})
        assert dataclasses.replace(recipe, retry=again).is_done(RUN) is done
        assert not dataclasses.replace(recipe, options=("--width=9",)).is_done(RUN)
        assert dataclasses.replace(recipe, retry=again, evaluate="--all").is_done(RUN) is done
        evaluated = status_ in ("diverged", "stopped") and done
        assert dataclasses.replace(recipe, retry=again, evaluate="").is_done(RUN) is evaluated
    one, other = (RUN._replace(group=(("data-root", value),)) for value in ("a/b", "a_b"))  # in the same folder
    write(stub.out / one.name, {**recipe.fresh(one), "status": "finished"})
    assert (recipe.is_done(one), recipe.is_done(other)) == (True, False)


def test_a_run_is_running_while_a_training_has_it(tmp_path: Path):
    assert record(tmp_path)["status"] == "missing"
    with FileLock(tmp_path / "training.lock"):
        assert record(tmp_path)["status"] == "running"
    assert record(tmp_path)["status"] == "missing"
    (tmp_path / "console.log").touch()
    assert record(tmp_path)["status"] == "interrupted"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", "{"),
        ("run.json", '{"study": "table1"}'),
        ("run.json", '{RECORD, "settings": {"loss": "hinge"}}'),
        ("log.jsonl", '{"iteration": 1}\nno\n'),
        ("evaluations/x.json", '{"metrics": 1}'),
    ],
)
def test_a_broken_record_of_a_sweep_is_named(name: str, content: str, stub: Stub, capsys: pytest.CaptureFixture[str]):
    folder, fresh = stub.out / RUN.name, stub.recipe().fresh(RUN)
    write(folder, {**fresh, "status": "finished" if name.startswith("evaluations") else "missing"})
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(content.replace("RECORD", json.dumps(fresh)[1:-1]), encoding="utf-8")
    assert sweep.main(["collect", "table1", f"--out={stub.out}"]) == 2
    message = capsys.readouterr().err
    assert f"{folder / name}" in message
    assert ("log.jsonl, line 2: expected " if name == "log.jsonl" else "expected ") in message


@pytest.mark.parametrize("out", ["file", "file/run", "x" * 300, "/proc/run"])
def test_a_folder_that_cannot_be_made_is_named(out: str, stub: Stub, capsys: pytest.CaptureFixture[str]):
    (stub.script.parent / "file").touch()
    stub.out = stub.script.parent / out
    assert stub.run("--losses=hinge") == 2
    assert str(stub.out) in capsys.readouterr().err


# What came of the runs


def result(run: Run, status: str, metrics: dict[str, float], script: str = "train", name: str = "a") -> Result:
    record = {"script": script, "options": [], "settings": run.settings, "status": status, "iteration": 7}
    return Result(record, {7: {"metrics": metrics, "evaluation": f"{name}.json"}} if metrics else {})


def row(
    seed: int = 0, pair: tuple[str, str] = ("0.1", "0.2"), status: str = "finished", name: str = "a", **metrics: float
) -> Result:
    (run,) = plan(SWEEPS["table1"], {"loss": ("hinge",)}, [pair], [seed])
    return result(run, status, metrics, name=name)


def test_the_best_pair_is_that_of_the_first_seed_whatever_others_say():
    rows = [
        row(1, fid=30),
        row(2, fid=36),
        row(0, fid=20),
        row(0, ("0.2", "0.1"), fid=21),
        row(1, ("0.2", "0.1"), fid=1),
        row(0, ("0.2", "0.2"), status="diverged"),
        row(3, status="missing"),
        row(4, status="diverged"),
    ]
    assert tables.best(rows, "fid") == ("0.1", "0.2")
    assert tables.best(rows, "kid_mean") is None
    mean, deviation = tables.spread([20, 30, 36]) or (0, 0)
    assert mean == pytest.approx((20 + 30 + 36) / 3)
    assert deviation == pytest.approx(math.sqrt(((20 - mean) ** 2 + (30 - mean) ** 2 + (36 - mean) ** 2) / 2))
    page = tables.summary("losses", rows, "fid")
    assert "| hinge | 0.1 / 0.2 | 28.67 ± 8.08 | 4 of 5, 1 diverged | 1 of 3 |" in page
    assert "8 runs: 5 finished, 2 diverged, 1 missing. Trained by `train`; measured in `a.json`." in page


def test_runs_that_differ_in_more_than_their_settings_are_not_compared_in_silence():
    alike, warning = row(1, fid=1), "**These runs cannot be compared.** Trained by "
    changed = alike._replace(record={**alike.record, "options": ["--width=3"]})
    for other, message in (
        (changed, f"{warning}`train`, by `train --width=3`; measured in `a.json`."),
        (row(1, name="b", fid=1), f"{warning}`train`; measured in `a.json`, in `b.json`."),
    ):
        assert message in tables.summary("x", [row(fid=2), other], "fid")
    assert warning not in tables.summary("x", [row(fid=2), alike], "fid")


def test_an_evaluation_counts_for_its_own_iteration_and_can_be_chosen_of_several(tmp_path: Path):
    def at_end(pattern: str = "*.json") -> tuple[str, dict[str, float]]:
        found = Result({"status": "finished", "iteration": 20}, evaluations(tmp_path, pattern)).at_end
        return found["evaluation"], found["metrics"]

    assert at_end() == ("", {})
    (tmp_path / "evaluations").mkdir()
    for name, fid, iteration in (("10-z", 5, 10), ("20-a", 3, 20), ("20-b", 2, 20), ("30-a", 1, 30)):
        content = {"metrics": {"fid": fid}, "provenance": {"checkpoint": {"iteration": iteration}}}
        (tmp_path / "evaluations" / f"iteration-{name}.json").write_text(json.dumps(content))
    floor = {"metrics": {"fid": 0}, "provenance": {"measured": "real images of the train split"}}
    (tmp_path / "evaluations" / "real-train.json").write_text(json.dumps(floor))
    assert at_end() == ("iteration-20-b.json", {"fid": 2})
    assert at_end("*-a.json") == ("iteration-20-a.json", {"fid": 3})
    assert at_end("*-z.json") == ("", {})
    # That of a run which the scheduler stopped is not compared with those at the end.
    assert Result({"status": "stopped", "iteration": 20}, evaluations(tmp_path)).metrics == {}


def finish(stub: Stub, *, seeds: tuple[int, ...] = (0,), **fids: float) -> None:
    """Leave what finished runs leave, by loss; a FID of a pair is higher by one than that of the pair before."""
    for loss, fid in fids.items():
        for number, run in enumerate(plan(SWEEPS["table1"], {"loss": (loss,)}, [(1e-4, 1e-4), (1e-4, 1e-3)], seeds)):
            folder = stub.out / run.name
            write(folder, {**stub.recipe().fresh(run), "status": "finished", "iteration": 3})
            (folder / "evaluations").mkdir()
            (folder / "evaluations" / "3.json").write_text(
                json.dumps(
                    {"metrics": {"fid": fid + number, "kid_std": 0.1}, "provenance": {"checkpoint": {"iteration": 3}}}
                )
            )


def test_a_sweep_in_the_works_can_be_collected(stub: Stub, capsys: pytest.CaptureFixture[str]):
    image = pytest.importorskip("PIL.Image")
    finish(stub, hinge=20)
    *_, slow = plan(SWEEPS["table1"], {"loss": ("mmd-rep",)}, [(1e-4, 1e-3)])
    write(stub.out / slow.name, stub.recipe().fresh(slow))
    (stub.out / slow.name / "log.jsonl").write_text('{"iteration": 1}\n{"iteration": 2}\n{"iter')
    other = plan(SWEEPS["lambda"], {}, [(1, 2)])[0]
    write(stub.out / other.name, {**stub.recipe().fresh(other), "study": "lambda"})
    with FileLock(stub.out / slow.name / "training.lock"):
        assert sweep.main(["collect", "table1", f"--out={stub.out}", "--limit=20.5"]) == 0
    with (stub.out / "table1.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [list(line.values()) for line in lines] == [
        ["hinge", "0.0001", "0.0001", "0", "finished", "3", "20", "0.1", "3.json"],
        ["hinge", "0.0001", "0.001", "0", "finished", "3", "21", "0.1", "3.json"],
        ["mmd-rep", "0.0001", "0.001", "0", "running", "2", "", "", ""],
    ]
    assert list(lines[0])[4:] == ["status", "iteration", "fid", "kid_std", "evaluation"]
    page = (stub.out / "table1.md").read_text(encoding="utf-8")
    assert page in capsys.readouterr().out
    assert "| hinge | 0.0001 / 0.0001 | 20.00 | 1 | 0 of 2 |\n| mmd-rep | - | - | 0 | 0 of 0 |" in page
    with image.open(stub.out / "table1.png") as picture:
        assert picture.size == (1100, 390)


def test_tables_are_written_without_what_draws_the_figure(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    finish(stub, hinge=20)
    monkeypatch.setattr(training, "find_spec", lambda name: None)
    message = refusal(capsys, lambda: sweep.main(["collect", "table1", f"--out={stub.out}"]))
    assert message.startswith("Not installed: matplotlib. ")
    assert {path.name for path in stub.out.glob("table1.*")} == {"table1.csv", "table1.md"}


def test_a_script_without_an_evaluation_beside_it_is_refused(stub: Stub, capsys: pytest.CaptureFixture[str]):
    stub.script.with_name("evaluate.py").unlink()
    assert stub.run("--losses=hinge", "--evaluate=") == 2
    assert f"there is no {stub.script.with_name('evaluate.py')}" in capsys.readouterr().err
    assert not stub.out.exists()


def test_a_sweep_that_is_not_there_is_refused(stub: Stub, capsys: pytest.CaptureFixture[str]):
    assert set(get_args(sweep.Name)) == set(SWEEPS)
    with pytest.raises(SystemExit, match="^2$"):
        sweep.main(["run", "table2", f"--out={stub.out}"])
    assert "'table2'" in capsys.readouterr().err
    assert sweep.main(["collect", "table1", f"--out={stub.out}"]) == 2
    assert f"{stub.out} has no runs of table1" in capsys.readouterr().err


def test_more_seeds_are_planned_at_the_best_pairs_of_settings_that_are_known(
    stub: Stub, capsys: pytest.CaptureFixture[str]
):
    finish(stub, hinge=20, **{"mmd-rep": 30})
    (stub.out / "loss=mmd-rep,lr-discriminator=0.0001,lr-generator=0.001,seed=0" / "evaluations" / "3.json").unlink()
    words = ["list", *stub.words("--losses=hinge,mmd-rep", "--pairs=best", "--seeds=1,2")[1:]]
    assert sweep.main(words) == 0
    shown = capsys.readouterr()
    names = [line.split()[-1] for line in shown.out.splitlines()[:-1]]
    assert names == [f"loss=hinge,lr-discriminator=0.0001,lr-generator=0.0001,seed={seed}" for seed in (1, 2)]
    assert "loss=mmd-rep: some runs of the first seed have no result yet; left out" in shown.err


def test_the_figure_has_a_bar_or_a_mark_for_each_pair_and_a_panel_for_what_is_not_along_its_axis():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    rows = []
    for run in plan(SWEEPS["lambda"], {"lambda": (-1, 2)}, [(1, 1), (1, 2), (2, 1), (2, 2)], (0, 1)):
        found, fid = {
            ("1", "1"): ("finished", 10.0 + run.seed),
            ("1", "2"): ("finished", 99.0),
            ("2", "1"): ("diverged", None) if run.seed else ("finished", 12.0),
            ("2", "2"): ("missing", None),
        }[run.pair]
        rows.append(result(run, found, {} if fid is None else {"fid": fid}))
    tables.draw(figure, rows, ("lambda",), "fid", 50)
    assert [axes.get_title() for axes in figure.axes] == ["loss = mmd-rep", "loss = mmd-rep-b"]
    for axes in figure.axes:
        assert [label.get_text() for label in axes.get_xticklabels()] == ["-1", "2"]
        bars = [bar.get_height() for bars in axes.containers for bar in bars if hasattr(bar, "get_height")]
        assert sorted(bars) == [0, 0, 10.5, 10.5, 12, 12, 99, 99]
        assert sorted(line.get_marker() for line in axes.lines if line.get_marker() in "x.^") == sorted("x.^" * 2)
        assert axes.get_ylim() == (0, 50)


# By Ray Tune


@pytest.mark.paper
def test_a_training_that_a_signal_stopped_is_called_interrupted(stub: Stub, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("ray")
    from sweeps.tuning import Reporter

    report = {"status": "missing", "iteration": 1005, "message": ""}
    trial = SimpleNamespace(config={"settings": RUN.settings}, last_result=report)
    Reporter(stub.recipe()).on_trial_complete(0, [], trial)
    assert capsys.readouterr().out == f"{RUN.name}: interrupted at iteration 1,005\n"


@pytest.mark.paper
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_all_runs_are_done_once_and_what_diverged_or_failed_is_noted(stub: Stub, capsys: pytest.CaptureFixture[str]):
    diverged = "loss=hinge,lr-discriminator=0.0001,lr-generator=0.001,seed=0"
    words = ["--losses=hinge,minimax", "--evaluate=--images 10 --features 'a b.pt'"]
    assert stub.run(*words) == 1
    shown = capsys.readouterr().out
    assert "4 runs: 4 missing" in shown
    assert f"{diverged}: diverged at iteration 1,002 Stopped at iteration 1,002, where loss_generator is nan" in shown
    assert shown.count("training failed with status 1:") == shown.count("\n    RuntimeError: out of luck") == 2
    assert "\n    99\n" in shown
    assert "\n    50\n" not in shown
    assert "4 runs: 1 finished, 1 diverged, 2 failed" in shown
    traces = stub.traces()
    assert sorted(map(tuple, traces.values())) == [(1,), (1,), (1, 2), (1, 2, 3)]
    # Each sees one GPU.
    assert {json.loads(path.read_text())[1] for path in stub.out.glob("*/environment")} == {"0", "1"}
    assert [path.read_text() for path in stub.out.glob("*/evaluated")] == ["--images 10 --features a b.pt\n"]
    # What is done is skipped, and what failed is repeated; after a slip in the options nothing is forgotten.
    before = {path: path.read_text() for path in stub.out.glob("loss=hinge*/run.json")}
    assert stub.run("--losses=hinge", "--", "--changed") == 1
    assert stub.run(*words[1:], "--losses=hinge") == 0
    assert {path: path.read_text() for path in before} == before
    assert stub.traces() == traces
    assert stub.run("--losses=hinge", "--retry", "--evaluate=--fail") == 1
    assert "evaluation failed with status 1:\n    no network" in capsys.readouterr().out
    assert stub.traces()[diverged] == [1, 2, 2]
    # A longer sweep goes on with the same runs.
    assert stub.run("--losses=mmd-rep") == stub.run("--losses=mmd-rep", "--", "--iterations=5") == 0
    assert [trace for name, trace in stub.traces().items() if "mmd-rep" in name] == [[1, 2, 3, 4, 5]] * 2


@pytest.mark.paper
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_scheduler_stops_what_is_worse_at_the_rungs(stub: Stub):
    words = ["--losses=mmd-rep,mmd-rbf", "--evaluate=", "--rungs=2", "--jobs=1", "--", "--iterations=4"]
    assert stub.run(*words) == 0
    found = {name: record(stub.out / name) for name in stub.traces()}
    stopped = [name for name, each in found.items() if each and each["status"] == "stopped"]
    assert [name.split(",")[2] for name in stopped] == ["lr-generator=0.001"] * len(stopped)
    assert stopped
    assert [stub.traces()[name] for name in stopped] == [[1, 2]] * len(stopped)
    assert all(trace == [1, 2, 3, 4] for name, trace in stub.traces().items() if name not in stopped)
    assert stub.run(*words) == 0
    assert stub.run("--retry", "--losses=mmd-rep,mmd-rbf", "--", "--iterations=4") == 0
    assert list(stub.traces().values()) == [[1, 2, 3, 4]] * 4


@pytest.mark.paper
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_run_in_the_hands_of_another_process_is_left_to_it(stub: Stub, capsys: pytest.CaptureFixture[str]):
    taken = "loss=mmd-rep,lr-discriminator=0.0001,lr-generator=0.0001,seed=0"
    (stub.out / taken).mkdir(parents=True)
    with FileLock(stub.out / taken / "training.lock"):
        assert stub.run("--losses=mmd-rep") == 1
    assert "taken is in use by another training\n" in capsys.readouterr().out.replace(taken, "taken")
    assert list(stub.traces().values()) == [[1, 2, 3]]


@pytest.mark.paper
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_sweep_on_two_workers_that_was_ended_is_finished_by_the_same_command(number: signal.Signals, stub: Stub):
    words = ["--losses=mmd-rep,mmd-rbf", "--evaluate=", "--", "--iterations=500"]
    slow = stub.script.with_name("slow")
    slow.touch()
    ended = stub.start(*words)
    wait_for(lambda: sum(len(trace) > 2 for trace in stub.traces().values()) == 2)
    pids = [int(path.read_text()) for path in stub.out.glob("*/pid")]
    assert len(pids) == 2
    start = time.monotonic()
    if number == signal.SIGKILL:
        ended.kill()
    else:
        # Slurm sends a signal to all processes, and `timeout` to the program and then to its group.
        os.killpg(ended.pid, number)
        for pid in pids:
            os.kill(pid, number)
        time.sleep(0.5)
        ended.terminate()
    shown = ended.communicate()[0]
    assert ended.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 1), shown
    assert time.monotonic() - start < 30  # without Ray's processes, the sweep waits for them for a minute
    if number != signal.SIGKILL:
        # Some trainings may have ended before the sweep ends them.
        *before, one, other, last = (line for line in shown.splitlines() if ": interrupted at" not in line)
        assert before == [
            f"4 runs: 4 missing; by train.py on this machine, in {stub.out}",
            "Checking the settings with train.py",
            "Starting Ray, which can take a minute",
        ]
        assert {one, other} == {f"{name}: starts at iteration 0" for name in stub.traces()}
        assert last == "4 runs: 2 interrupted, 2 missing; the same command continues"
    wait_for(lambda: "running" not in stub.statuses().values())
    assert not any(map(is_alive, pids))
    traces = stub.traces()
    if number == signal.SIGTERM:  # trainings have saved
        for name, trace in traces.items():
            assert (stub.out / name / "checkpoints" / f"iteration-{len(trace):08d}.pt").exists()
    slow.unlink()
    assert stub.run(*words) == 0
    assert len(stub.traces()) == len(list(stub.out.glob("*/evaluated"))) == 4
    for name, trace in stub.traces().items():
        assert sorted(set(trace)) == list(range(1, 501))
        # The iteration at a kill is done again.
        assert len(trace) <= 500 + (number == signal.SIGKILL and name in traces)


@pytest.mark.paper
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_real_training_is_finished_and_another_diverges(stub: Stub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(EXAMPLES), *sys.path]))
    words = ["run", "table1", f"--out={stub.out}", "--script=dcgan_fake", "--losses=hinge", "--jobs=2"]
    words += ["--pairs=1e-4/2e-4,1e3/1e37,1e-4/1e-4", "--", "--normalisation=none", "--iterations=6"]
    taken = stub.out / "loss=hinge,lr-discriminator=0.0001,lr-generator=0.0001,seed=0"
    taken.mkdir(parents=True)
    with FileLock(taken / "training.lock"):
        assert sweep.main(words) == 1
        assert sorted(stub.statuses().values()) == ["diverged", "finished", "running"]
    assert record(taken)["status"] == "interrupted"
