"""Sweeps: which runs there are, and that each is done once, whatever happens to the processes that do them."""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import sweep
from dcgan import losses, options, presets
from dcgan.locks import is_locked, locked
from hypothesis import given
from hypothesis import strategies as st
from stubs import TRAIN
from sweeps import figure, results, workers
from sweeps.attempt import understood
from sweeps.devices import place
from sweeps.folders import Evaluation, Folder, Outcome, Status
from sweeps.grids import RATES, STUDIES
from sweeps.plan import plan, share, text
from sweeps.processes import Ended
from sweeps.results import Row
from sweeps.summary import summary

pytestmark = pytest.mark.xdist_group("processes")

EXAMPLES = Path(__file__).parents[2] / "examples"

EVALUATE = """
# Behaves like evaluate.py: a distance that is least where the learning rates are equal.
import json, os, sys

run, overwrite, *rest = sys.argv[1:]
assert overwrite == "--overwrite"
if rest == ["--fail"]:
    sys.exit("no network")
settings = dict(word.split("=") for word in os.path.basename(run).split(","))
d, g, seed = (float(settings[name]) for name in ("lr-discriminator", "lr-generator", "seed"))
fid = 20 + abs(d / g - 1) + seed
os.makedirs(run + "/evaluations", exist_ok=True)
with open(run + "/evaluations/iteration-00000003.json", "w") as file:
    json.dump({"metrics": {"fid": fid, "kid_mean": fid / 1000, "kid_std": 0.1, "images": None}, "provenance": {}}, file)
with open(run + "/evaluated", "a") as file:
    file.write(" ".join(rest) + "\\n")
"""

PAIRS = ["--pairs", "1e-4/1e-4,1e-4/1e-3"]


class Sweep:
    """A sweep with stubs in place of the training and the evaluation."""

    def __init__(self, folder: Path):
        self.out = folder / "sweep"
        self.script, self.evaluator = folder / "train.py", folder / "evaluate.py"
        self.script.write_text(TRAIN, encoding="utf-8")
        self.evaluator.write_text(EVALUATE, encoding="utf-8")

    def words(self, *words: str) -> list[str]:
        own = ["run", "table1", "--out", self.out, "--script", self.script, "--evaluator", self.evaluator, *PAIRS]
        return [*map(str, own), *words]

    def run(self, *words: str) -> int:
        return sweep.main(self.words(*words))

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(EXAMPLES / "sweep.py"), *self.words(*words)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def traces(self) -> dict[str, list[int]]:
        """The iterations that were done in each run, in their order."""
        return {path.parent.name: [int(line) for line in path.read_text().split()] for path in self.out.glob("*/trace")}

    def statuses(self) -> dict[str, Status]:
        return {path.name: Folder(path).status() for path in self.out.glob("*/")}


@pytest.fixture
def stub(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path)


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


# Which runs there are


def test_the_studies_are_those_of_the_paper():
    assert RATES == (1e-4, 2e-4, 5e-4, 1e-3)
    assert {name: len(plan(study)) for name, study in STUDIES.items()} == {
        "table1": 7 * 16,
        "lambda": 2 * 6 * 16,
        "constant": 4 * (5 + 1) * 16,
        "scores": 5 * 5 * 16,
    }
    others = {"minimax", "wasserstein", "smmd"}
    assert {run.settings["loss"] for run in plan(STUDIES["table1"])} == {*losses.NAMES} - others


@pytest.mark.parametrize("name", STUDIES)
def test_the_training_scripts_know_all_settings_of_a_study(name: str):
    runs = plan(STUDIES[name], pairs=[(1e-4, 1e-3)], seeds=[3])
    reader = options.Reader("Train.", presets.PRESETS["cifar10"], Path("run"))
    configurations = {reader.read(run.options)[0] for run in runs}
    # Different names stand for different trainings.
    assert len(configurations) == len(runs) == len({run.name for run in runs})
    assert {configuration.seed for configuration in configurations} == {3}


def test_the_name_of_a_run_says_its_settings_however_they_were_written():
    name = "loss=mmd-rep,lambda=-0.5,ema-decay=0.99,width=8,lr-discriminator=0.0001,lr-generator=0.001,seed=2"
    study = STUDIES["lambda"]
    for vary in (
        {"loss": ("mmd-rep",), "lambda": ("-.5",), "width": ("8",), "ema-decay": (0.99,)},
        {"ema-decay": ("9.9e-1",), "width": (8.0,), "lambda": (-0.5,), "loss": ("mmd-rep",)},
    ):
        (run,) = plan(study, vary=vary, pairs=[("1e-4", 1e-3)], seeds=[2])
        assert run.name == name
    assert run.pair == ("0.0001", "0.001")
    assert run.group == (("loss", "mmd-rep"), ("lambda", "-0.5"), ("ema-decay", "0.99"), ("width", "8"))


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**40), 2**40))
def test_the_text_of_a_number_is_one_and_exact(number: float):
    assert float(text(number)) == number
    assert text(text(number)) == text(number) == text(f"{number!r}") == text(f"{number:.25e}")


@pytest.mark.parametrize("word", ["", "a/b", "a,b", "a=b", "--help"])
def test_words_that_cannot_be_in_a_name_are_refused(word: str):
    with pytest.raises(ValueError, match="expected a number or a plain word"):
        text(word)


def test_values_in_place_of_a_studys_leave_no_run_twice():
    runs = plan(STUDIES["constant"], vary={"normalisation": ("pico",), "total-scale": (64,)}, pairs=[(1, 2)])
    assert [run.name for run in runs] == [
        f"loss={loss},normalisation=pico,total-scale=64,lr-discriminator=1,lr-generator=2,seed=0"
        for loss in ("hinge", "mmd-rbf", "mmd-rep", "mmd-rep-b")
    ]


def test_an_option_of_a_study_can_be_left_to_the_script():
    runs = plan(STUDIES["scores"], vary={"total-scale": ()}, pairs=[(1, 2)])
    assert [dict(run.group) for run in runs] == [{"loss": "mmd-rep", "scores": str(d)} for d in (1, 4, 16, 64, 256)]


@given(st.integers(0, 50), st.integers(1, 60))
def test_the_shares_of_an_array_are_all_runs_each_once(count: int, of: int):
    runs = plan(STUDIES["table1"])[:count]
    shares = [share(runs, index, of) for index in range(of)]
    assert sorted(run.name for part in shares for run in part) == sorted(run.name for run in runs)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


# Where they run


def test_a_gpu_is_the_only_one_that_its_run_sees():
    assert place("cuda:1", None, {}).environment == {"CUDA_VISIBLE_DEVICES": "1"}
    assert place("cuda:1", None, {}).options == ["--device=cuda"]
    # A scheduler gave us two GPUs of eight.
    assert place("cuda:1", None, {"CUDA_VISIBLE_DEVICES": "3,6"}).environment == {"CUDA_VISIBLE_DEVICES": "6"}
    with pytest.raises(ValueError, match=r"devices: cuda:2 is not there, CUDA_VISIBLE_DEVICES is '3,6'"):
        place("cuda:2", None, {"CUDA_VISIBLE_DEVICES": "3,6"})
    assert place("mps", None, {}).options == ["--device=mps"]
    assert place("cuda", None, {}) == place("cuda", None, {"CUDA_VISIBLE_DEVICES": "3"})


def test_a_cpu_is_one_thread_unless_said_otherwise(stub: Sweep):
    assert stub.run("--losses", "mmd-rep", "--devices", "cpu", "--jobs", "2") == 0
    assert stub.run("--losses", "mmd-rbf", "--devices", "cuda:1,cuda:0", "--threads", "3") == 0
    found = {json.loads(path.read_text())[0]: [] for path in stub.out.glob("*/environment")}
    for path in stub.out.glob("*/environment"):
        device, *variables = json.loads(path.read_text())
        found[device].append(variables)
    assert found["cpu"] == [["", "1"], ["", "1"]]
    assert sorted(found["cuda"]) == [["0", "3"], ["1", "3"]]


# Doing them


def test_all_runs_are_done_once_and_what_is_done_is_skipped(stub: Sweep, capsys: pytest.CaptureFixture[str]):
    assert stub.run("--losses", "mmd-rep,mmd-rbf", "--jobs", "3") == 0
    assert len(stub.traces()) == 4
    assert set(map(tuple, stub.traces().values())) == {(1, 2, 3)}
    assert "4 runs: 4 missing; 3 at a time" in capsys.readouterr().out
    assert stub.run("--losses", "mmd-rep,mmd-rbf,mmd-rq", "--seeds", "0") == 0
    assert "6 runs: 2 missing, 4 finished; 1 at a time" in capsys.readouterr().out
    assert set(map(tuple, stub.traces().values())) == {(1, 2, 3)}


def test_a_longer_training_that_was_killed_at_once_is_not_taken_for_the_shorter_one(stub: Sweep):
    stub.run("--losses", "mmd-rep")
    for path in stub.out.glob("*/"):
        folder = Folder(path)
        folder.begin({**(folder.description() or {}), "options": ["--iterations=5"]})
    assert set(stub.statuses().values()) == {Status.INTERRUPTED}
    assert stub.run("--losses", "mmd-rep", "--", "--iterations=5") == 0
    assert list(stub.traces().values()) == [[1, 2, 3, 4, 5]] * 2


def test_a_run_that_ended_without_its_sweep_is_known_by_its_last_checkpoint(stub: Sweep):
    stub.run("--losses", "mmd-rep")
    outcomes = list(stub.out.glob("*/outcome.json"))
    for path in outcomes:
        path.unlink()
    assert set(stub.statuses().values()) == {Status.FINISHED}
    assert stub.run("--losses", "mmd-rep") == 0
    assert len(outcomes) == sum(path.exists() for path in outcomes) == 2
    assert list(stub.traces().values()) == [[1, 2, 3]] * 2


def test_a_list_says_how_far_runs_are_and_does_nothing(stub: Sweep, capsys: pytest.CaptureFixture[str]):
    words = ["list", *stub.words("--losses", "mmd-rep", "--", "--refuse")[1:]]
    assert sweep.main(words) == 0
    assert not stub.out.exists()
    stub.run("--losses", "mmd-rep", "--index", "1", "--of", "2")
    capsys.readouterr()
    assert sweep.main(words) == 0
    assert capsys.readouterr().out.splitlines() == [
        "missing             0  loss=mmd-rep,lr-discriminator=0.0001,lr-generator=0.0001,seed=0",
        "finished            3  loss=mmd-rep,lr-discriminator=0.0001,lr-generator=0.001,seed=0",
        "2 runs: 1 missing, 1 finished",
    ]


def test_a_longer_sweep_goes_on_with_the_same_runs(stub: Sweep):
    stub.run("--losses", "mmd-rep")
    assert stub.run("--losses", "mmd-rep", "--", "--iterations=5") == 0
    assert set(map(tuple, stub.traces().values())) == {(1, 2, 3, 4, 5)}


def test_a_run_that_diverged_is_noted_and_not_repeated_unless_asked(stub: Sweep, capsys: pytest.CaptureFixture[str]):
    diverged = "loss=hinge,lr-discriminator=0.0001,lr-generator=0.001,seed=0"
    assert stub.run("--losses", "hinge", "--evaluate", "") == 0
    assert f"{diverged}: diverged at iteration 1,002" in capsys.readouterr().out
    noted = json.loads((stub.out / diverged / "outcome.json").read_text())
    assert noted["status"] == "diverged"
    assert noted["iteration"] == 1002
    assert noted["message"].startswith("Stopped at iteration 1,002, where loss_generator is nan")
    assert not (stub.out / diverged / "evaluated").exists()
    assert stub.run("--losses", "hinge") == 0
    assert stub.traces()[diverged] == [1, 2]
    assert stub.run("--losses", "hinge", "--retry") == 0
    assert stub.traces()[diverged] == [1, 2, 2]


def test_a_failure_is_shown_and_repeated_and_stops_nothing_else(stub: Sweep, capsys: pytest.CaptureFixture[str]):
    assert stub.run("--losses", "minimax,mmd-rep") == 1
    shown = capsys.readouterr().out
    assert shown.count("training failed with status 1; the end of ") == 2
    assert "RuntimeError: out of luck" in shown
    assert "\n    99\n" in shown
    assert "\n    50\n" not in shown
    assert "4 runs: 2 finished, 2 failed" in shown
    assert stub.run("--losses", "minimax,mmd-rep") == 1
    assert sorted(map(tuple, stub.traces().values())) == [(1, 1), (1, 1), (1, 2, 3), (1, 2, 3)]


@pytest.mark.parametrize("status", [1, 2, -9])
def test_only_the_scripts_own_words_are_a_divergence(status: int):
    words = "Stopped at iteration 7, where loss_generator is inf. Try"
    outcome = understood(Ended(status, f"iteration 5 of 9: loss\n{words}\n"), 5)
    assert outcome.status is (Status.DIVERGED if status == 1 else Status.FAILED)
    assert understood(Ended(1, f"Traceback\n  print({words!r})\nKeyError"), 5).status is Status.FAILED


def test_a_slip_in_the_options_forgets_nothing(stub: Sweep, capsys: pytest.CaptureFixture[str]):
    assert stub.run("--losses", "mmd-rep,hinge", "--evaluate", "") == 0
    before = {path: path.read_text() for path in stub.out.glob("*/*.json")}
    assert stub.run("--losses", "mmd-rep,hinge", "--evaluate", "", "--", "--changed") == 1
    assert capsys.readouterr().out.count("training failed with status 2") == 4
    assert {path: path.read_text() for path in stub.out.glob("*/*.json")} == before
    assert stub.run("--losses", "mmd-rep,hinge", "--evaluate", "") == 0


def test_a_finished_run_is_evaluated_once_for_the_same_options(stub: Sweep, capsys: pytest.CaptureFixture[str]):
    def evaluations() -> set[str]:
        return {path.read_text() for path in stub.out.glob("*/evaluated")}

    assert stub.run("--losses", "mmd-rep") == 0
    assert not evaluations()
    for _ in range(2):
        assert stub.run("--losses", "mmd-rep", "--evaluate=--images 10 --features 'a b.pt'") == 0
        assert evaluations() == {"--images 10 --features a b.pt\n"}
    assert stub.run("--losses", "mmd-rep", "--evaluate=--images 20") == 0
    assert evaluations() == {"--images 10 --features a b.pt\n--images 20\n"}
    assert stub.run("--losses", "mmd-rep", "--evaluate=--fail") == 1
    assert "evaluation failed with status 1" in capsys.readouterr().out
    assert set(stub.statuses().values()) == {Status.FINISHED}
    assert set(map(tuple, stub.traces().values())) == {(1, 2, 3)}


# Locks and interruptions


def test_a_lock_is_held_once_and_ends_with_its_last_holder(tmp_path: Path):
    path = tmp_path / "folder" / "lock"
    assert not is_locked(path)
    with locked(path) as first, locked(path) as second:
        assert first is not None
        assert second is None
        assert is_locked(path)
        heir = subprocess.Popen(["sleep", "60"], pass_fds=[first])
    assert is_locked(path)
    heir.kill()
    heir.wait()
    assert not is_locked(path)


def test_two_sweeps_at_once_share_the_runs(stub: Sweep):
    both = [stub.start("--losses", "mmd-rep,mmd-rbf,mmd-rq,hinge", "--", "--pause=0.03") for _ in range(2)]
    shown = [process.communicate()[0] for process in both]
    assert {process.returncode for process in both} <= {0, 3}, shown
    assert sum(text.count(": started on") for text in shown) == 8
    assert sorted(map(tuple, stub.traces().values())) == [(1, 2)] + [(1, 2, 3)] * 7


def test_a_run_that_was_taken_is_looked_at_again_in_the_end(stub: Sweep):
    taken = stub.out / "loss=mmd-rep,lr-discriminator=0.0001,lr-generator=0.0001,seed=0"
    with locked(taken / "run.lock"):
        process = stub.start("--losses", "mmd-rep", "--", "--pause=0.2")
        wait_for(lambda: begun(stub))
    assert process.communicate()
    assert process.returncode == 0
    assert list(stub.traces().values()) == [[1, 2, 3]] * 2


def test_a_run_in_the_hands_of_another_process_is_left_to_it(stub: Sweep, capsys: pytest.CaptureFixture[str]):
    taken = "loss=mmd-rep,lr-discriminator=0.0001,lr-generator=0.0001,seed=0"
    with locked(stub.out / taken / "run.lock"):
        assert stub.run("--losses", "mmd-rep") == 3
        assert stub.statuses()[taken] is Status.RUNNING
    assert f"{taken}: is in the hands of another process" in capsys.readouterr().out
    assert list(stub.traces().values()) == [[1, 2, 3]]


def test_after_the_sweep_was_killed_its_training_goes_on_and_nothing_is_lost_or_doubled(stub: Sweep):
    slow = ["--losses", "mmd-rep", "--evaluate", "", "--", "--iterations=20", "--pause=0.05"]
    killed = stub.start(*slow)
    wait_for(lambda: any(len(trace) > 2 for trace in stub.traces().values()))
    killed.kill()
    killed.communicate()
    (running,) = (name for name, status in stub.statuses().items() if status is Status.RUNNING)
    # The next sweep does the other run first, and by then the orphan is through.
    assert stub.run(*slow) in (0, 3)
    wait_for(lambda: not is_locked(stub.out / running / "run.lock"))
    assert stub.run(*slow) == 0
    assert list(stub.traces().values()) == [list(range(1, 21))] * 2
    assert len(list(stub.out.glob("*/evaluated"))) == 2


def test_after_everything_was_killed_the_sweep_goes_on_from_the_checkpoints(stub: Sweep):
    slow = ["--losses", "mmd-rep", "--jobs", "2", "--", "--iterations=8", "--pause=0.05"]
    killed = stub.start(*slow)
    wait_for(lambda: sum(len(trace) > 2 for trace in stub.traces().values()) == 2)
    killed.kill()
    killed.communicate()
    pids = [int(path.read_text()) for path in stub.out.glob("*/pid")]
    assert len(pids) == 2
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: set(stub.statuses().values()) == {Status.INTERRUPTED})
    assert stub.run(*slow) == 0
    for trace in stub.traces().values():
        assert sorted(set(trace)) == list(range(1, 9))
        assert len(trace) <= 9  # the iteration at the kill is done again


@pytest.fixture
def _foreground(monkeypatch: pytest.MonkeyPatch):
    """Handle signals as in a foreground process, however the tests were started, and pass them on soon."""
    monkeypatch.setattr(workers, "GRACE", 0.2)
    before = {number: signal.getsignal(number) for number in workers.SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def soon(condition: Callable[[], object], action: Callable[[], object]) -> None:
    """Do something when a condition holds, while the test goes on."""

    def wait():
        wait_for(condition)
        action()

    threading.Thread(target=wait, daemon=True).start()


def begun(stub: Sweep) -> bool:
    return any(len(trace) > 1 for trace in stub.traces().values())


LONG = ["--losses", "mmd-rep", "--jobs", "2", "--", "--iterations=300", "--pause=0.05"]


def assert_saved(stub: Sweep) -> None:
    """Check that each training ended when it had saved its last iteration, and that none is taken for settled."""
    for name, trace in stub.traces().items():
        assert (stub.out / name / "checkpoints" / f"iteration-{len(trace):08d}.pt").exists()
        assert not (stub.out / name / "outcome.json").exists()


@pytest.mark.usefixtures("_foreground")
@pytest.mark.parametrize("number", workers.SIGNALS)
def test_a_signal_lets_the_trainings_save_and_the_sweep_can_go_on(
    number: signal.Signals, stub: Sweep, capsys: pytest.CaptureFixture[str]
):
    handler = signal.getsignal(number)
    soon(lambda: begun(stub), lambda: os.kill(os.getpid(), number))
    assert stub.run(*LONG) == 128 + number
    assert signal.getsignal(number) is handler
    assert f"2 runs: 2 interrupted; interrupted by {number.name}" in capsys.readouterr().out
    assert_saved(stub)
    longest = max(map(len, stub.traces().values()))
    assert longest < 290
    words = [*LONG[:-2], f"--iterations={longest + 2}"]
    assert stub.run(*words) == 0
    assert list(stub.traces().values()) == [list(range(1, longest + 3))] * 2


@pytest.mark.usefixtures("_foreground")
def test_a_training_that_the_scheduler_told_too_is_interrupted_and_not_told_twice(
    stub: Sweep, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(workers, "GRACE", 60)

    def tell_all():
        pids = [int(path.read_text()) for path in stub.out.glob("*/pid")]
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)  # a training that ends before the sweep has seen its own signal has failed
        for pid in pids:
            os.kill(pid, signal.SIGTERM)

    soon(lambda: len(stub.traces()) == 2 and begun(stub), tell_all)
    assert stub.run(*LONG[:-1], "--pause=0.4") == 128 + signal.SIGTERM
    assert set(stub.statuses().values()) == {Status.INTERRUPTED}
    assert_saved(stub)


@pytest.mark.usefixtures("_foreground")
def test_an_ignored_signal_stays_ignored(stub: Sweep):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    soon(lambda: begun(stub), lambda: os.kill(os.getpid(), signal.SIGHUP))
    assert stub.run("--losses", "mmd-rep", "--", "--pause=0.1") == 0


@pytest.mark.usefixtures("_foreground")
def test_a_second_signal_ends_trainings_that_do_not_listen(stub: Sweep):
    soon(lambda: begun(stub), lambda: os.kill(os.getpid(), signal.SIGINT))

    def again():
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    soon(lambda: begun(stub), again)
    assert stub.run(*LONG, "--deaf") == 128 + signal.SIGINT
    assert set(stub.statuses().values()) <= {Status.INTERRUPTED, Status.MISSING}
    assert all(len(trace) < 290 for trace in stub.traces().values())


def test_what_breaks_in_the_sweep_itself_ends_it(stub: Sweep, monkeypatch: pytest.MonkeyPatch):
    def full(folder: Folder, outcome: Outcome):
        raise OSError("No space left on device")

    monkeypatch.setattr(Folder, "save", full)
    with pytest.raises(OSError, match="No space left"):
        stub.run("--losses", "mmd-rep", "--jobs", "2")


# What is refused


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pairs", "1e-4"], "expected best, or pairs such as 5e-4/2e-4, got '1e-4'"),
        (["--pairs", "best"], "has no setting yet with a result for all pairs of its first seed"),
        (["--seeds", "0,0"], "expected different values with commas between them, got '0,0'"),
        (["--seeds", "-1"], "expected a whole number >= 0, got '-1'"),
        (["--jobs", "0"], "expected a whole number > 0, got '0'"),
        (["--losses", "a/b"], "expected a number or a plain word, got 'a/b'"),
        (["--vary", "seed=1,2"], "expected OPTION=VALUE,... of an option that is free, got 'seed=1,2'"),
        (["--vary", "width"], "expected OPTION=VALUE,... of an option that is free, got 'width'"),
        (["--index", "2", "--of", "2"], "expected --index below --of, got 2 and 2"),
        (["--index", "0"], "expected --index below --of, got 0 and None"),
        (["--script", "dcgan_mnist"], "there is no "),
        (["--evaluate", "'"], 'No closing quotation in "\'"'),
        (["--evaluate", "", "--evaluator", "nowhere.py"], "there is no nowhere.py"),
        (["--", "--seed=3"], "--seed after -- is given by the sweep"),
        (["--", "--loss", "hinge"], "--loss after -- is given by the sweep"),
        (["--vary", "width=2,4", "--", "--width", "8"], "--width after -- is given by the sweep"),
        (["--", "--refuse"], "train.py refuses loss=hinge,lr-discriminator=0.0001,lr-generator=0.0001,seed=0: stub"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_done(
    words: list[str], message: str, stub: Sweep, capsys: pytest.CaptureFixture[str]
):
    own = [] if "--losses" in words else ["--losses", "hinge"]
    with pytest.raises(SystemExit, match="2"):
        stub.run(*own, *words)
    assert message in capsys.readouterr().err
    assert not stub.out.exists()


# What came of them


def row(
    seed: int = 0, pair: tuple[str, str] = ("0.1", "0.2"), status: Status = Status.FINISHED, **metrics: float
) -> Row:
    (run,) = plan(STUDIES["table1"], vary={"loss": ("hinge",)}, pairs=[pair], seeds=[seed])
    return Row(run, status, 7, Evaluation("a.json", metrics) if metrics else None, "train")


def test_the_best_pair_is_that_of_the_first_seed_whatever_others_say():
    rows = [
        row(1, fid=30),
        row(2, fid=36),
        row(0, fid=20),
        row(0, ("0.2", "0.1"), fid=21),
        row(1, ("0.2", "0.1"), fid=1),
        row(0, ("0.2", "0.2"), status=Status.DIVERGED),
    ]
    found = results.best(rows, "fid")
    assert found is not None
    assert found.pair == ("0.1", "0.2")
    assert [row.run.seed for row in found.rows] == [0, 1, 2]
    mean, deviation = found.metric("fid") or (0, 0)
    assert mean == pytest.approx((20 + 30 + 36) / 3)
    assert deviation == pytest.approx(math.sqrt(((20 - mean) ** 2 + (30 - mean) ** 2 + (36 - mean) ** 2) / 2))
    assert results.best(rows, "kid_mean") is None
    page = summary("losses", rows, "fid")
    assert "| hinge | 0.1 / 0.2 | 28.67 ± 8.08 | 3 | 1 of 3 |" in page
    assert "6 runs: 5 finished, 1 diverged. Trained by `train`; measured in `a.json`." in page


def test_seeds_without_a_result_are_counted_in_the_summary():
    page = summary("losses", [row(fid=0.25), row(1, status=Status.DIVERGED), row(2, status=Status.MISSING)], "fid")
    assert "| hinge | 0.1 / 0.2 | 0.2500 | 1 of 3 | 0 of 1 |" in page


@pytest.mark.parametrize(
    ("command", "evaluation", "found"),
    [
        ("train --width=3", "a.json", "Trained by `train`, by `train --width=3`; measured in `a.json`."),
        ("train", "b.json", "Trained by `train`; measured in `a.json`, in `b.json`."),
    ],
)
def test_runs_that_differ_in_more_than_their_settings_are_not_compared_in_silence(
    command: str, evaluation: str, found: str
):
    other = Row(row(1).run, Status.FINISHED, 7, Evaluation(evaluation, {"fid": 1.0}), command)
    page = summary("losses", [row(fid=2), other], "fid")
    assert f"**These runs cannot be compared.** {found}" in page


def test_a_sweep_in_the_works_can_be_collected(stub: Sweep, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    assert stub.run("--losses", "mmd-rep,hinge", "--seeds", "0,1", "--evaluate", "", "--index", "0", "--of", "2") == 0
    # A run that is going on, and one of another study.
    slow = next(name for name, status in stub.statuses().items() if status is Status.MISSING)
    (stub.out / slow / "log.jsonl").write_text('{"iteration": 1}\n{"iteration": 2}\n{"iter')
    sweep.main(["run", "lambda", "--out", str(stub.out), "--script", str(stub.script), "--losses", "mmd-rep", *PAIRS])
    capsys.readouterr()
    with locked(stub.out / slow / "run.lock"):
        assert sweep.main(["collect", "table1", "--out", str(stub.out), "--limit", "21"]) == 0
    with (stub.out / "table1.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 8
    assert list(lines[0]) == [
        *(
            "loss",
            "lr-discriminator",
            "lr-generator",
            "seed",
            "status",
            "iteration",
            "fid",
            "kid_mean",
            "kid_std",
            "evaluation",
        )
    ]
    statuses = [line["status"] for line in lines]
    assert (statuses.count("finished"), statuses.count("running"), statuses.count("missing")) == (4, 1, 3)
    for line in lines:
        name = ",".join(f"{option}={line[option]}" for option in list(line)[:4])
        assert (stub.out / name / "run.json").exists()
        assert line["iteration"] == {"finished": "3", "running": "2", "missing": "0"}[line["status"]]
        assert bool(line["fid"]) == (line["status"] == "finished")
    assert (stub.out / "table1.md").read_text(encoding="utf-8") in capsys.readouterr().out
    with image.open(stub.out / "table1.png") as picture:
        assert picture.size == (1100, 390)


def test_tables_are_written_without_what_draws_the_figure(
    stub: Sweep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    stub.run("--losses", "mmd-rep")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SystemExit, match="2"):
        sweep.main(["collect", "table1", "--out", str(stub.out)])
    assert "the figure needs matplotlib and Pillow: import of matplotlib" in capsys.readouterr().err
    assert (stub.out / "table1.csv").exists()
    assert (stub.out / "table1.md").exists()


def test_what_was_never_begun_cannot_be_collected(stub: Sweep, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        sweep.main(["collect", "table1", "--out", str(stub.out)])
    assert f"{stub.out} has no runs of table1" in capsys.readouterr().err


def test_more_seeds_can_be_run_at_the_best_pairs(stub: Sweep, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("matplotlib")
    both = ["--losses", "mmd-rep,mmd-rbf", "--evaluate", "", "--pairs", "best", "--seeds", "1,2"]
    assert stub.run("--losses", "mmd-rep", "--evaluate", "") == 0
    assert stub.run("--losses", "mmd-rbf", "--evaluate", "", "--index", "0", "--of", "2") == 0
    assert stub.run(*both) == 0
    assert "loss=mmd-rbf: 1 runs of the first seed have no result yet; left out" in capsys.readouterr().err
    assert {run_name.split(",")[0] for run_name in stub.statuses() if "seed=0" not in run_name} == {"loss=mmd-rep"}
    assert stub.run("--losses", "mmd-rbf", "--evaluate", "") == 0
    assert stub.run(*both) == 0
    seeds = {name for name in stub.statuses() if "seed=0" not in name}
    assert seeds == {
        f"loss={loss},lr-discriminator=0.0001,lr-generator=0.0001,seed={seed}"
        for loss, seed in itertools.product(("mmd-rep", "mmd-rbf"), (1, 2))
    }
    assert sweep.main(["collect", "table1", "--out", str(stub.out)]) == 0
    page = (stub.out / "table1.md").read_text(encoding="utf-8")
    assert "| mmd-rep | 0.0001 / 0.0001 | 21.00 ± 1.00 | 0.0210 ± 0.0010 | 3 | 0 of 2 |" in page


def test_an_evaluation_counts_for_its_own_iteration_and_can_be_chosen_of_several(tmp_path: Path):
    def write(name: str, fid: float, **provenance: object):
        content = {"metrics": {"fid": fid, "kid_mean": math.nan}, "provenance": provenance}
        (tmp_path / "evaluations" / name).write_text(json.dumps(content))

    folder = Folder(tmp_path)
    assert folder.evaluation(20) is None
    (tmp_path / "evaluations").mkdir()
    write("iteration-10-z.json", 5, checkpoint={"iteration": 10})
    write("iteration-20-a.json", 3, checkpoint={"iteration": 20})
    write("iteration-20-b.json", 2, checkpoint={"iteration": 20})
    write("iteration-30-a.json", 1, checkpoint={"iteration": 30})
    assert folder.evaluation(20) == ("iteration-20-b.json", {"fid": 2.0})
    assert folder.evaluation(20, "*-a.json") == ("iteration-20-a.json", {"fid": 3.0})
    assert folder.evaluation(20, "*-z.json") is None
    write("other.json", 7)
    assert folder.evaluation(20, "other*") == folder.evaluation(10, "o*") == ("other.json", {"fid": 7.0})


def test_the_figure_has_a_bar_or_a_mark_for_each_pair_and_a_panel_for_what_is_not_along_its_axis():
    matplotlib_figure = pytest.importorskip("matplotlib.figure")
    study = STUDIES["lambda"]
    rows = []
    for run in plan(study, vary={"lambda": (-1, 2)}, pairs=[(1, 1), (1, 2), (2, 1), (2, 2)], seeds=(0, 1)):
        status, fid = {
            ("1", "1"): (Status.FINISHED, 10.0 + run.seed),
            ("1", "2"): (Status.FINISHED, 99.0),
            ("2", "1"): (Status.DIVERGED, None) if run.seed else (Status.FINISHED, 12.0),
            ("2", "2"): (Status.MISSING, None),
        }[run.pair]
        rows.append(Row(run, status, 0, None if fid is None else Evaluation("a.json", {"fid": fid}), "train"))
    drawn = matplotlib_figure.Figure()
    figure.draw(drawn, study, rows, "fid", 50)
    assert [axes.get_title() for axes in drawn.axes] == ["loss = mmd-rep", "loss = mmd-rep-b"]
    for axes in drawn.axes:
        assert [label.get_text() for label in axes.get_xticklabels()] == ["-1\n1 diverged", "2\n1 diverged"]
        bars = [bar.get_height() for container in axes.containers for bar in container if hasattr(bar, "get_height")]
        assert sorted(bars) == [10.5, 10.5, 12, 12, 99, 99]
        marks = [line.get_marker() for line in axes.lines if line.get_marker() in "x.^"]
        assert sorted(marks) == sorted("x.^" * 2)
        assert axes.get_ylim() == (0, 50)
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == [
        *("1 / 1", "1 / 2", "2 / 1", "2 / 2", "no result yet", "diverged", "above 50")
    ]


# The real script


def test_a_real_training_is_finished_and_another_diverges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("PIL")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(EXAMPLES), *sys.path]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = ["run", "table1", "--out", str(tmp_path), "--script", "dcgan_fake", "--losses", "hinge"]
    words += ["--pairs", "1e-4/2e-4,1e3/1e37", "--devices", "cpu"]
    assert sweep.main([*words, "--", "--normalisation", "none", "--iterations", "6"]) == 0
    finished, diverged = sorted(tmp_path.glob("*/"))
    assert Folder(finished).status() is Status.FINISHED
    assert Folder(diverged).status() is Status.DIVERGED
    # By its checkpoint alone the training is known to be through.
    (finished / "outcome.json").unlink()
    assert Folder(finished).outcome() == Outcome(Status.FINISHED, iteration=6)
    Folder(finished).keep()
    assert json.loads((finished / "outcome.json").read_text())["status"] == "finished"
    assert Folder(finished).iteration() == 6
