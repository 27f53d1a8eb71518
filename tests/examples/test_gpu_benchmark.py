"""The benchmark for GPUs: rehearsed on a CPU, interrupted, and with parts that fail or hang."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

# They start processes.
pytestmark = pytest.mark.xdist_group("processes")

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "benchmarks" / "gpu.py"
MODULES = ("gpu", "on_gpu.journal", "on_gpu.supervision", "on_gpu.tables", "on_gpu.timing")


@pytest.fixture(scope="module")
def modules() -> Iterator[SimpleNamespace]:
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)
        yield SimpleNamespace(**{name.rpartition(".")[2]: importlib.import_module(name) for name in MODULES})
    for name in set(sys.modules) - before:
        if str(SCRIPT.parent) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def begin(out: Path, *words: str) -> subprocess.Popen[str]:
    """Start the script."""
    command = [sys.executable, str(SCRIPT), "--rehearse", "--out", str(out), *words]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_rehearsal_does_every_part_in_full(modules, tmp_path: Path):
    process = begin(tmp_path / "run.jsonl")
    tables, _ = process.communicate()
    records = modules.journal.read(tmp_path / "run.jsonl")
    log = (tmp_path / "run.log").read_text()
    assert process.returncode == 0, log
    ended = {r["part"]: r["ended"] for r in records if "ended" in r}
    assert ended == dict.fromkeys(modules.gpu.SHARES, "in full"), log
    errors = [r for r in records if "error" in r and r.get("candidate") != "geomloss"]
    assert errors == []
    outcomes = [r["outcome"] for r in records if "outcome" in r]
    assert set(outcomes) <= {"passed", "skipped"}
    assert outcomes.count("passed") > 40
    for part, keys in {
        "device": {"device", "versions", "TF32 by default"},
        "losses": {"seconds", "host_seconds", "bytes", "kernels", "waits", "reported"},
        "large": {"seconds", "in_float64", "first_call"},
        "training step": {"part_of_step", "images", "kernels"},
        "tests": {"outcome"},
        "compiled losses": {"seconds", "first_call"},
        "tests of training": {"outcome"},
        "compiled step": {"seconds", "first_calls"},
    }.items():
        assert keys <= set().union(*(r for r in records if r["part"] == part)), part
    assert {r["candidate"] for r in records if r["part"] == "losses" and "n" in r} >= {"plain", "mmd2", "both"}
    assert {r["part_of_step"] for r in records if "part_of_step" in r} == {
        "data",
        "generator",
        "discriminator",
        "loss",
        "normalisation",
        "updates",
    }
    assert "A rehearsal: its numbers say nothing" in tables
    for title, _ in modules.tables.TABLES.values():
        assert f"### {title}\n" in tables
    assert "What failed" not in tables.replace("What failed\n\n- losses: geomloss", "")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_keeps_what_it_has(modules, number: signal.Signals, tmp_path: Path):
    out = tmp_path / "run.jsonl"
    process = begin(out)
    try:
        for _ in range(600):
            if out.exists() and any(r["part"] == "losses" for r in modules.journal.read(out)):
                break
            time.sleep(0.1)
        child = children(process.pid)
        process.send_signal(number)
        printed, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    records = modules.journal.read(out)
    assert {r["part"] for r in records} >= {"run", "device", "losses"}
    if number == signal.SIGKILL:
        assert process.returncode == -number
        printed = modules.tables.tables(records)
    else:
        assert process.returncode == 128 + number
        assert records[-1] == {"part": "end", "stopped": number.name}
        assert f"the run was stopped by {number.name}" in printed
    assert "| losses |" in printed
    assert "was interrupted" in printed
    assert child
    assert_ended(*child)


def children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def assert_ended(*pids: int) -> None:
    """Check that processes, which the system may be about to end, are gone."""
    deadline = time.monotonic() + 10
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, pids))


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def supervised(modules, folder: Path, program: str, seconds: float) -> tuple[str | None, list[dict[str, object]]]:
    """Run a small program as a part."""
    found: list[dict[str, object]] = []
    text = f"import os, json\ndef emit(r): os.write(int(os.environ['{modules.journal.CHANNEL}']), r)\n{program}"
    command = [sys.executable, "-S", "-c", text]
    error = modules.supervision.run(command, os.environ, seconds, found.append, folder / "log", folder)
    return error, found


def test_a_part_that_ends_has_all_its_records(modules, tmp_path: Path):
    program = "for i in range(2000): emit(json.dumps({'i': i}).encode() + b'\\n')"
    assert supervised(modules, tmp_path, program, 30) == (None, [{"i": i} for i in range(2000)])


def test_a_part_that_fails_keeps_its_records_and_its_last_words(modules, tmp_path: Path):
    (tmp_path / "log").write_text("of the part before\n")
    error, found = supervised(modules, tmp_path, "emit(b'{\"a\": 1}\\n{\"b')\nraise OSError('no device')", 30)
    assert found == [{"a": 1}]
    assert error.startswith("status 1: Traceback")
    assert error.endswith("OSError: no device")


@pytest.mark.parametrize("closes", [False, True])
def test_a_part_that_hangs_is_ended_with_what_it_started(modules, closes: bool, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(modules.supervision, "GRACE", 0.2)
    close = f"os.close(int(os.environ['{modules.journal.CHANNEL}']))" if closes else ""
    program = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)'])\n"
        f"emit(json.dumps({{'pid': child.pid}}).encode() + b'\\n')\n{close}\ntime.sleep(60)"
    )
    start = time.monotonic()
    error, found = supervised(modules, tmp_path, program, 1.5)
    assert error == "ended after 2 s, its share of the time"
    assert time.monotonic() - start >= 1.5
    assert_ended(found[0]["pid"])


def test_no_part_eats_the_time_of_those_after_it(modules, monkeypatch):
    gpu, clock = modules.gpu, [100.0]
    monkeypatch.setattr(gpu, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    usable, shares = 480 * (1 - gpu.RESERVE), {k: v / sum(gpu.SHARES.values()) for k, v in gpu.SHARES.items()}
    # Those that take all they may have their own shares.
    for name, seconds in gpu.parts(480, clock[0]):
        assert seconds == pytest.approx(usable * shares[name])
        clock[0] += seconds
    assert clock[0] == pytest.approx(100 + usable)
    # What the first ones leave is there for the next one, and no more.
    clock[0] = 0.0
    for name, seconds in gpu.parts(480, 0.0):
        if name == "tests":
            assert seconds == pytest.approx(usable * sum(list(shares.values())[:5]))
    assert sum(gpu.SHARES.values()) == 480


def test_the_last_line_of_a_killed_run_may_be_cut_off(modules, tmp_path: Path):
    journal = modules.journal.Journal(tmp_path / "run.jsonl")
    journal.write({"part": "run"})
    with (tmp_path / "run.jsonl").open("a") as file:
        file.write('{"part": "los')
    assert modules.journal.read(tmp_path / "run.jsonl") == [{"part": "run"}]
    with pytest.raises(FileExistsError):
        modules.journal.Journal(tmp_path / "run.jsonl")


def test_tables_of_a_gpu(modules):
    line = {"part": "losses", "n": 64, "d": 16, "kernel": "RBF", "copies": 0, "reads": 3}
    of_step = {"part": "training step", "precision": "float32"}
    text = modules.tables.tables(
        [
            {"part": "run", "command": "c", "date": "today", "rehearsal": False},
            {"part": "device", "device": "H200", "versions": {"torch": "2.12"}, "CUDA": "13.0", "HIP": None},
            {
                **line,
                "candidate": "plain",
                "seconds": 4e-4,
                "bytes": 2_000_000,
                "kernels": 40,
                "waits": 0,
                "reported": 0,
            },
            {**line, "candidate": "mmd2", "seconds": 1e-4, "bytes": 500_000, "kernels": 15, "waits": 1, "reported": 2},
            {**line, "candidate": "both", "error": "OutOfMemoryError: no memory"},
            {"part": "losses", "ended": "ended after 9 s, its share of the time", "seconds": 9.0},
            {"part": "tests", "test": "a::b", "outcome": "failed", "why": "long"},
            {"part": "tests", "test": "a::c", "outcome": "passed"},
            {**of_step, "what": "`mmd-rep-b`, `conv`", "seconds": 0.01, "images": 64},
            {**of_step, "part_of_step": "loss", "seconds": 0.001},
            {"part": "end", "stopped": "SIGTERM"},
        ]
    )
    for expected in (
        "`c` on H200, today; torch 2.12; CUDA 13.0.",
        "| 64, 16 | RBF | plain | 0.4 | 1.00 | 2 | 40 | 0 | 0 |",
        "| 64, 16 | RBF | mmd2 | 0.1 | 0.25 | 0.5 | 15 | 0 | 2 |",
        "| losses | 3 | 9 | ended after 9 s, its share of the time |",
        "1 failed, 1 passed\n- a::b: failed",
        "| float32 | `mmd-rep-b`, `conv` | 10 | 6400 |",
        "| loss | 1, 10.0% |",
        "- losses: 64, 16, RBF, both: OutOfMemoryError: no memory",
        "- the run was stopped by SIGTERM",
    ):
        assert expected in text


def test_candidates_that_fail_do_not_stop_the_others(modules):
    timing, calls = modules.timing, []

    def runs_out_of_memory() -> None:
        calls.append("full")
        if calls.count("full") > 4:
            raise torch.OutOfMemoryError("no memory")

    def fails() -> None:
        raise RuntimeError("no compiler")

    found, errors = timing.timed(
        {
            "works": timing.Candidate(lambda: calls.append("works")),
            "fails": timing.Candidate(fails),
            "full": timing.Candidate(runs_out_of_memory, before=lambda: calls.append("before")),
        },
        torch.device("cpu"),
        0.0,
    )
    assert list(found) == ["works"]
    assert found["works"]["rounds"] == 3
    assert errors == {"fails": "RuntimeError: no compiler", "full": "OutOfMemoryError: no memory"}
    assert calls.count("before") == 5


def test_flags_of_precision_are_restored(modules):
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [flag.allow_tf32 for flag in flags]
    for allowed in (True, False):
        with contextlib.suppress(KeyError), modules.timing.tensor_float(allowed):
            assert [flag.allow_tf32 for flag in flags] == [allowed] * 2
            raise KeyError
        assert [flag.allow_tf32 for flag in flags] == before


def test_reads_of_numbers_are_counted(modules):
    x = torch.ones(3)
    found = modules.timing.counts(modules.timing.Candidate(lambda: x.sum().item()), torch.device("cpu"))
    assert found == {"kernels": None, "copies": None, "waits": None, "reads": 1, "reported": None}


def test_one_gpu_is_visible_and_compilers_write_into_a_folder_of_the_run(modules, monkeypatch, tmp_path: Path):
    for before, expected in ((None, "0"), ("3,1", "3"), ("MIG-a", "MIG-a")):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if before is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
        found = modules.gpu.variables(rehearsal=False, cache=tmp_path)
        assert found["CUDA_VISIBLE_DEVICES"] == expected
        assert "GPU_TESTS_ON" not in found
        assert found["TORCHINDUCTOR_CACHE_DIR"].startswith(str(tmp_path))


def test_every_test_for_gpus_belongs_to_a_part(modules):
    files = [set(modules.gpu.test_files(part)) for part in ("tests", "tests of training")]
    marked = {str(p.relative_to(ROOT)) for p in (ROOT / "tests").rglob("*.py") if "mark.gpu" in p.read_text()}
    assert files[0] | files[1] == marked - {"tests/examples/test_gpu_benchmark.py"}
    assert not files[0] & files[1]
    assert "tests/test_gpu.py" in files[0]
    assert "tests/examples/test_training_gpu.py" in files[1]


def test_without_a_gpu_nothing_is_written(modules, monkeypatch, tmp_path: Path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = tmp_path / "run.jsonl"
    assert modules.gpu.main(["--out", str(out)]) == 2
    assert "--rehearse" in capsys.readouterr().err
    assert not out.exists()


def test_tables_of_old_records(modules, tmp_path: Path, capsys):
    path = tmp_path / "run.jsonl"
    path.write_text(json.dumps({"part": "run", "command": "old", "date": "then", "rehearsal": True}) + "\n")
    assert modules.gpu.main(["--table", str(path)]) == 0
    assert "`old` on an unknown device, then" in capsys.readouterr().out
