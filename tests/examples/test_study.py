"""The study of the papers' claims: what it runs, what it keeps of it, what it says; and that the docs say the same."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import re
import shutil
import signal
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import study
import torch
from dcgan import options, presets, record
from dcgan.batches import to_pixels
from dcgan.configuration import resolved
from dcgan.locks import locked
from dcgan.losses import MMD
from dcgan.sources import MissingDataError
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from stubs import TRAIN
from studies import claims, command, costs, logs, protocol, report, results, sheets, tables, timing
from studies.comparison import Comparison, Verdict, compare
from studies.pictures import kernel_means, samples, series
from studies.protocol import Question, Setting, setting
from sweeps.folders import Folder, Outcome, Status
from sweeps.plan import Pair, Run
from sweeps.workers import SignalledError

ROOT = Path(__file__).parents[2]

CHECKPOINTS = range(400, protocol.ITERATIONS + 1, 400)


def all_runs(best: Mapping[str, Pair]) -> list[Run]:
    runs = [run for question in protocol.QUESTIONS.values() for run in protocol.grid(question)]
    return protocol.unique(runs + [run for each in protocol.QUESTIONS.values() for run in protocol.at_best(each, best)])


# What is run


def test_the_runs_are_those_of_the_plan_whichever_pairs_are_best():
    questions = protocol.QUESTIONS
    for pair in protocol.PAIRS:
        best = dict.fromkeys(protocol.LOSSES, pair)
        found = []
        counts = {}
        for name, question in questions.items():
            before = len(protocol.unique(found))
            found += protocol.grid(question) + protocol.at_best(question, best)
            counts[name] = len(protocol.unique(found)) - before
        assert counts == {"losses": 32 + 16, "updates": 6, "scores": 9, "norms": 15, "lambda": 36}
        assert len({run.name for run in protocol.unique(found)}) == 114
    assert len(protocol.grid(questions["losses"])) == 32
    assert {name for name, question in questions.items() if question.of_grid} == {"losses", "lambda"}


def test_the_training_script_knows_all_runs_and_no_two_are_the_same_training():
    reader = options.Reader("Train.", presets.PRESETS["fashion-mnist"], Path("run"))
    runs = all_runs(dict.fromkeys(protocol.LOSSES, protocol.PAIRS[0]))
    configurations = [reader.read([*protocol.OPTIONS, *run.options])[0] for run in runs]
    assert {each.iterations for each in configurations} == {protocol.ITERATIONS}
    # What decides a training is the kernel and not the name of the loss.
    kernels = {loss: kernel.__name__ for loss, (kernel, _) in MMD.items()}
    trainings = {
        tuple({**dataclasses.asdict(each), "loss": kernels.get(each.loss, each.loss)}.items())
        for each in map(resolved, configurations)
    }
    assert len(trainings) == len(runs) == 114


def test_a_setting_has_one_name_however_it_is_asked_for():
    assert setting("mmd-rep", scores=16, scale=1 / 0.55, updates="simultaneous", **{"lambda": 1}) == (
        ("loss", "mmd-rep"),
    )
    assert setting("mmd-rep-b", **{"lambda": -1}) == setting("mmd-rbf-b") == setting("mmd-rbf-b", **{"lambda": -1})
    assert dict(setting("mmd-rep", **{"lambda": -1})) == {"loss": "mmd-rep", "lambda": "-1"}
    assert dict(setting("hinge", updates="alternating")) == {"loss": "hinge", "updates": "alternating"}


# Raw logs


def write(raw: Path, run: Run, fid: float | Mapping[int, float], *, coverage: float = 1.0) -> None:
    """Write the raw log of a run that ends with an FID, or that has some by iteration; it diverges if that is inf."""
    fids = fid if isinstance(fid, Mapping) else dict.fromkeys(CHECKPOINTS, fid)
    diverged = math.inf in fids.values()
    of_kernel = {"k_rr": 0.5, "k_rf": 0.2, "k_ff": 0.8} if run.settings["loss"] in kernel_means.LOSSES else {}
    lines = [{"kind": "run", "settings": run.settings, "status": "diverged" if diverged else "finished"}]
    lines += [{"kind": "training", "iteration": iteration, **of_kernel} for iteration in (1, 100, 200)]
    if not diverged:
        lines += [
            {
                "kind": "evaluation",
                "iteration": iteration,
                "metrics": {"fid": value, "kid_mean": value / 100, "class_coverage": coverage},
            }
            for iteration, value in fids.items()
        ]
    raw.mkdir(exist_ok=True)
    (raw / f"{run.name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


BEST = ("0.0005", "0.002")
"""The best pair in what follows."""


def write_grid(raw: Path, chosen: Setting, fids: Sequence[float]) -> None:
    """Write the raw logs of the first seed for all pairs."""
    for pair, fid in zip(protocol.PAIRS, fids, strict=True):
        write(raw, protocol.run_of(chosen, pair, 0), fid)


def write_seeds(raw: Path, chosen: Setting, fids: Sequence[float], **more: float) -> None:
    """Write the raw logs of the seeds at the best pair, as many as there are."""
    for seed, fid in zip(protocol.SEEDS, fids, strict=False):
        write(raw, protocol.run_of(chosen, BEST, seed), fid, **more)


def write_loss(raw: Path, loss: str, fids: Sequence[float], others: float = 30.0) -> None:
    """Write the raw logs of a loss: at the best pair with some seeds, and at the other pairs."""
    write_grid(raw, setting(loss), [others] * 4)
    write_seeds(raw, setting(loss), fids)


def rows(table: str) -> dict[str, list[str]]:
    """Return the cells of the lines of a table by the first one."""
    lines = [[cell.strip() for cell in line.strip("|\n").split(" | ")] for line in table.splitlines()]
    assert len({len(line) for line in lines}) == 1
    return {line[0]: line[1:] for line in lines[2:]}


def folder_of_a_run(path: Path, outcome: Outcome | None) -> Folder:
    """Return the folder of a run of three iterations that has two evaluations."""
    folder = Folder(path / "loss=hinge")
    folder.describe({"study": "s", "script": "t", "settings": {"loss": "hinge"}, "options": ["--width=8"]})
    (folder.path / "configuration.json").write_text('{"width": 8}')
    (folder.path / "log.jsonl").write_text('{"iteration": 1, "loss": 0.123456789, "sigma": {"a": 2}, "x": null}\n{"it')
    (folder.path / "evaluations").mkdir()
    for iteration in (1, 3):
        result = {
            "metrics": {"fid": 10.0 / iteration},
            "class_shares": {"measured": [0.5, 0.5], "real": [0.1, 0.9]},
            "provenance": {**dict.fromkeys(logs.ORIGIN, "x"), "checkpoint": {"iteration": iteration}, "other": 1},
        }
        (folder.path / "evaluations" / f"iteration-{iteration}.json").write_text(json.dumps(result))
    if outcome is not None:
        folder.save(outcome)
    return folder


def test_a_raw_log_has_all_that_is_known_of_a_run(tmp_path: Path):
    folder = folder_of_a_run(tmp_path, Outcome(Status.FINISHED, iteration=3, evaluated="--all"))
    assert logs.export(folder, tmp_path, evaluation="--all")
    found = logs.read(tmp_path / "loss=hinge.jsonl")
    assert found["run"] == [
        {
            "study": "s",
            "script": "t",
            "settings": {"loss": "hinge"},
            "options": ["--width=8"],
            "status": "finished",
            "message": "",
            "iteration": 3,
            "configuration": {"width": 8},
        }
    ]
    assert found["training"] == [{"iteration": 1, "loss": 0.123457, "sigma": {"a": 2}, "x": None}]
    assert [(line["iteration"], line["metrics"]["fid"]) for line in found["evaluation"]] == [(1, 10), (3, 10 / 3)]
    assert [line["class_shares"] for line in found["evaluation"]] == [[0.5, 0.5]] * 2
    assert "provenance" not in found["evaluation"][0]
    assert set(found["evaluation"][1]["provenance"]) == set(logs.ORIGIN)


@pytest.mark.parametrize(
    ("outcome", "exported"),
    [
        (None, False),
        (Outcome(Status.FAILED, "out of luck"), False),
        (Outcome(Status.FINISHED, iteration=3), False),
        (Outcome(Status.FINISHED, iteration=3, evaluated="--images=10"), False),
        (Outcome(Status.FINISHED, iteration=3, evaluated="--all"), True),
        (Outcome(Status.DIVERGED, "Stopped", 2), True),
    ],
)
def test_a_run_is_exported_once_when_it_is_through(outcome: Outcome | None, exported: bool, tmp_path: Path):
    folder, path = folder_of_a_run(tmp_path, outcome), tmp_path / "loss=hinge.jsonl"
    assert logs.export(folder, tmp_path, evaluation="--all") is exported
    assert path.exists() is exported
    before = path.read_bytes() if exported else b""
    (folder.path / "log.jsonl").unlink()
    assert not logs.export(folder, tmp_path, evaluation="--all")
    assert exported is False or path.read_bytes() == before


# Results


def test_an_outcome_is_that_of_the_last_evaluation_and_may_be_a_failure(tmp_path: Path):
    run = protocol.run_of(setting("hinge"), BEST, 0)
    assert results.outcome(tmp_path, run) is None
    for fid, failed, diverged in ((40.0, False, False), (40.1, True, False), (math.inf, True, True)):
        write(tmp_path, run, {400: 50.0, 2000: fid, 800: 60.0})
        found = results.outcome(tmp_path, run)
        assert found is not None
        assert (found.fid, found.failed, found.diverged) == (fid, failed, diverged)
        assert bool(found.metrics) is not diverged


@given(st.permutations([3.0, 4.0, math.inf, 50.0]))
def test_the_best_pair_is_that_of_the_first_seed_when_all_pairs_are_known(
    tmp_path_factory: pytest.TempPathFactory, fids: list[float]
):
    raw, chosen = tmp_path_factory.mktemp("raw"), setting("hinge")
    write_grid(raw, chosen, fids)
    best = protocol.PAIRS[fids.index(3.0)]
    assert results.best_pair(raw, chosen) == best
    assert results.best_pairs(raw) == {"hinge": best}
    write(raw, protocol.run_of(chosen, protocol.PAIRS[fids.index(50.0)], 1), 1.0)
    write(raw, protocol.run_of(chosen, best, 2), 9.0)
    assert [each.fid for each in results.over_seeds(raw, chosen)] == [3.0, 9.0]
    # The other settings of a loss have its pair.
    alternating = setting("hinge", updates="alternating")
    write(raw, protocol.run_of(alternating, best, 1), 7.0)
    assert [each.fid for each in results.over_seeds(raw, alternating)] == [7.0]
    (raw / f"{protocol.run_of(chosen, protocol.PAIRS[0], 0).name}.jsonl").unlink()
    assert results.best_pair(raw, chosen) is None
    assert results.over_seeds(raw, chosen) == []


def test_there_is_no_best_pair_of_what_always_diverges(tmp_path: Path):
    write_grid(tmp_path, setting("hinge"), [math.inf] * 4)
    assert results.best_pairs(tmp_path) == {}
    assert protocol.at_best(protocol.QUESTIONS["losses"], {}) == []


# The rule


def seeds_of(mean: float, spread: float, count: int) -> list[float]:
    """Return numbers of a mean and of a standard deviation."""
    places = [float(place) for place in range(count)]
    deviation = statistics.stdev(places)
    return [mean + spread * (place - statistics.fmean(places)) / deviation for place in places]


@given(
    st.floats(0.01, 5),
    st.floats(0.01, 5),
    st.integers(2, 4),
    st.integers(2, 4),
    st.sampled_from([-1, 1]),
    st.booleans(),
)
def test_a_claim_holds_or_fails_beyond_two_standard_errors(
    first: float, second: float, n1: int, n2: int, sign: int, or_equal: bool
):
    error = math.sqrt(first**2 / n1 + second**2 / n2)
    for factor, expected in (
        (1.99, Verdict.STANDS if or_equal else Verdict.UNKNOWN),
        (2.01, Verdict.HOLDS if sign < 0 else Verdict.REFUTED),
    ):
        found = compare(seeds_of(20 + sign * factor * error, first, n1), seeds_of(20, second, n2))
        assert found is not None
        assert found.difference == pytest.approx(sign * factor * error)
        assert found.error == pytest.approx(error)
        assert found.verdict(or_equal=or_equal) is expected


def test_the_rule_of_three_seeds_in_numbers():
    # Variances of 1 each: the standard error is sqrt(2 / 3) = 0.816, and twice that 1.633.
    for difference, expected in (
        (-1.64, Verdict.HOLDS),
        (-1.63, Verdict.UNKNOWN),
        (1.63, Verdict.UNKNOWN),
        (1.64, Verdict.REFUTED),
    ):
        found = compare([4 + difference, 5 + difference, 6 + difference], [4.0, 5.0, 6.0])
        assert found is not None
        assert found.verdict(or_equal=False) is expected
        assert str(found) == f"{difference:+.2f} ± 0.82"
    assert Comparison(0.0, 0.0).verdict(or_equal=False) is Verdict.UNKNOWN


@pytest.mark.parametrize("first", [[], [1.0], [1.0, math.inf, 1.2]])
def test_too_few_seeds_and_diverged_ones_tell_nothing(first: list[float]):
    assert compare(first, [4.0, 5.0, 6.0]) is None
    assert compare([4.0, 5.0, 6.0], first) is None


def test_the_claims_are_of_runs_of_the_study():
    runs = {run.name for run in all_runs(dict.fromkeys(protocol.LOSSES, BEST))}
    for claim in claims.CLAIMS:
        for side in (claim.better, claim.worse):
            assert {protocol.run_of(each, BEST, seed).name for each in side.settings for seed in protocol.SEEDS} <= runs
    assert [str(claim) for claim in claims.CLAIMS if claim.or_equal] == ["mmd-rep-b is not worse than mmd-rep"]
    assert len(set(map(str, claims.CLAIMS))) == len(claims.CLAIMS) == 13


def test_the_table_of_claims_has_numbers_and_verdicts(tmp_path: Path):
    for loss, fids in {
        "mmd-rep": [3.0, 4.0, 5.0],
        "mmd-rbf": [6.0, 7.0, 8.0],
        "hinge": [3.1, 4.2, 5.3],
        "non-saturating": [1.0, 1.1, 1.2],
        "mmd-rep-b": [4.0, 4.5],
        "mmd-rbf-b": [6.0],
        "mmd-rq": [6.0, math.inf, 7.0],
    }.items():
        write_loss(tmp_path, loss, fids)
    found = rows(tables.claims.table(tmp_path))
    assert found["mmd-rep is better than mmd-rbf"] == [
        *("5.2, 1)", "4.00 ± 1.00", "7.00 ± 1.00", "-3.00 ± 0.82", "holds")
    ]
    assert found["mmd-rep is better than hinge"][-2:] == ["-0.20 ± 0.86", "cannot tell"]
    assert found["mmd-rep is better than non-saturating"][-1] == "does not hold"
    assert found["mmd-rep-b is not worse than mmd-rep"][1:] == [
        *("4.25 ± 0.35 (2 of 3)", "4.00 ± 1.00", "+0.25 ± 0.63", "not refuted")
    ]
    assert found["mmd-rep-b is better than mmd-rbf-b"][2:] == ["6.00 (1 of 3)", "-", "cannot tell"]
    assert found["mmd-rbf-b is better than mmd-rq"][2:] == ["6.50 ± 0.71 (3, 1 diverged)", "-", "cannot tell"]
    assert found["mmd-rep with 4 scores is better than mmd-rep with 1 score"][1] == "- (0 of 3)"


def test_the_best_of_several_constants_stands_for_a_norm_when_all_are_known(tmp_path: Path):
    name = "PICO at its best C is better than PIM at its best C"
    write_loss(tmp_path, "mmd-rep", [5.0, 6.0, 7.0])
    for norm, fids in (("pico", ([1.0, math.inf, 2.0], None, [4.0, 5.0, 6.0])), ("matrix", ([8.0, 9.0, 10.0],) * 3)):
        for scale, of_scale in zip(protocol.SCALES, fids, strict=True):
            assert rows(tables.claims.table(tmp_path))[name][-1] == "cannot tell"
            if of_scale:
                write_seeds(tmp_path, setting("mmd-rep", normalisation=norm, scale=scale), of_scale)
    assert rows(tables.claims.table(tmp_path))[name][1:] == [*("5.00 ± 1.00", "9.00 ± 1.00", "-4.00 ± 0.82", "holds")]


# Tables


def test_losses_stand_at_their_best_pair_with_all_pairs_that_failed(tmp_path: Path):
    write_grid(tmp_path, setting("mmd-rep"), [math.inf, 3.0, 40.5, 39.0])
    write_seeds(tmp_path, setting("mmd-rep"), [3.0, 4.0, 5.0], coverage=0.9)
    write(tmp_path, protocol.run_of(setting("hinge"), BEST, 0), 50.0)
    write_loss(tmp_path, "smmd", [3.0, math.inf])
    found = rows(tables.losses.table(tmp_path))
    assert list(found) == [*protocol.LOSSES, "floor: training images"]
    assert found["mmd-rep"] == ["0.0005 / 0.002", "4.00 ± 1.00", "0.0400 ± 0.0100", "90 ± 0 %", "3", "2 of 4"]
    assert found["hinge"] == ["-", "-", "-", "-", "0 of 3", "1 of 1 so far"]
    assert found["smmd"] == ["0.0005 / 0.002", "3.00", "0.0300", "100 %", "2 of 3, 1 diverged", "0 of 4"]
    assert found["mmd-rq"] == ["-", "-", "-", "-", "0 of 3", "-"]
    assert found["floor: training images"] == ["-"] * 6
    floor = {"metrics": {"fid": 0.0637, "kid_mean": -0.0007, "class_coverage": 1.0}, "provenance": {}}
    (tmp_path / "floor.json").write_text(json.dumps(floor))
    found = rows(tables.losses.table(tmp_path))
    assert found["floor: training images"] == ["-", "0.0637", "-0.0007", "100 %", "-", "-"]


def test_lambdas_have_the_fid_of_each_pair_and_count_what_failed(tmp_path: Path):
    of_rbf = {-1: [9.0, 8.0, 7.0, 41.0], -0.5: [5.0, 5.0, 5.0, 5.0], 2: [math.inf, math.inf, 60.0, 6.0]}
    for lambda_, fids in of_rbf.items():
        write_grid(tmp_path, setting("mmd-rep", **{"lambda": lambda_}), fids)
    # That of the bounded kernel with -1 goes by the name of the attractive loss.
    write(tmp_path, protocol.run_of(setting("mmd-rbf-b"), BEST, 0), 4.0)
    write_grid(tmp_path, setting("mmd-rep-b"), [math.inf] * 4)
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines_of(tables.lambdas, tmp_path)]
    assert [line[:2] for line in lines] == [
        [kernel, text] for kernel in ("RBF", "RBF-B") for text in ("-1", "-0.5", "0", "0.5", "1", "2")
    ]
    assert lines[0][2:] == ["9.00", "8.00", "7.00", "41.00", "7.00", "0 of 4", "1 of 4"]
    assert lines[5][2:] == ["diverged", "diverged", "60.00", "6.00", "6.00", "2 of 4", "3 of 4"]
    assert lines[6][2:] == ["-", "4.00", "-", "-", "4.00", "0 of 1 so far", "0 of 1 so far"]
    assert lines[7][2:] == ["-"] * 7
    assert lines[10][2:] == ["diverged"] * 5 + ["4 of 4"] * 2
    lowest, attractive, failed, in_all = rows(tables.observations.table(tmp_path)).values()
    assert lowest[0] == "7.00 at -1; 5.00 at -0.5; - at 0; - at 0.5; - at 1; 6.00 at 2"
    assert lowest[1] == "4.00 at -1; - at -0.5; - at 0; - at 0.5; diverged at 1; - at 2"
    assert attractive == ["7.00 at -1; 5.00 at -0.5", "4.00 at -1; - at -0.5"]
    assert failed[0] == "1 at -1; 0 at -0.5; - at 0; - at 0.5; - at 1; 3 at 2"
    assert in_all == ["4 of 12 so far", "4 of 5 so far"]


def lines_of(module: ModuleType, raw: Path) -> list[str]:
    return module.table(raw).splitlines()[2:]


def test_scores_and_norms_have_all_seeds_at_the_pair_of_their_loss(tmp_path: Path):
    write_loss(tmp_path, "mmd-rep", [3.0, 4.0, 5.0])
    write_seeds(tmp_path, setting("mmd-rep", scores=64), [2.0, 4.0])
    write_seeds(tmp_path, setting("mmd-rep", normalisation="matrix", scale=3), [8.0])
    found = rows(tables.scores.table(tmp_path))
    assert list(found) == ["1", "4", "16", "64"]
    assert [cells[0] for cells in found.values()] == ["-", "-", "4.00 ± 1.00", "3.00 ± 1.41"]
    assert [cells[-1] for cells in found.values()] == ["0 of 3", "0 of 3", "3", "2 of 3"]
    assert [line[: line.index(" ±") if "±" in line else None] for line in lines_of(tables.norms, tmp_path)] == [
        "| 1 | PICO | - | - | - | 0 of 3 |",
        "| 1 | PIM | - | - | - | 0 of 3 |",
        "| 1.82 | PICO | 4.00",
        "| 1.82 | PIM | - | - | - | 0 of 3 |",
        "| 3 | PICO | - | - | - | 0 of 3 |",
        "| 3 | PIM | 8.00 | 0.0800 | 100 % | 1 of 3 |",
    ]


def write_costs(raw: Path, milliseconds: Mapping[Setting, float]) -> None:
    lines = [
        {"settings": dict(chosen), "milliseconds": cost, "share_of_loss": None if cost == 50 else 0.0123}
        for chosen, cost in milliseconds.items()
    ]
    (raw / "costs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def test_updates_are_compared_after_equal_iterations_and_in_equal_time(tmp_path: Path):
    alternating = setting("hinge", updates="alternating")
    write_loss(tmp_path, "hinge", [3.0, 4.0, 5.0])
    for seed, fid in enumerate((2.0, 4.0, math.inf)):
        by_iteration = dict(zip(CHECKPOINTS, (60.0, 20.0, 10.0, fid, fid), strict=True))
        write(tmp_path, protocol.run_of(alternating, BEST, seed), by_iteration)
    before = lines_of(tables.updates, tmp_path)
    assert before[0] == "| hinge | simultaneous | - | 4.00 ± 1.00 | - | - | 3 |"
    assert before[2] == "| mmd-rep-b | simultaneous | - | - | - | - | 0 of 3 |"
    write_costs(tmp_path, {setting("hinge"): 60.1, alternating: 120.2, setting("mmd-rep-b"): 50.0})
    found = lines_of(tables.updates, tmp_path)
    assert found[0] == "| hinge | simultaneous | 60.1 | 4.00 ± 1.00 | 2,000 | 4.00 ± 1.00 | 3 |"
    # The 1,000th iteration lies in the middle of 20 and 10.
    assert found[1] == "| hinge | alternating | 120.2 | 3.00 ± 1.41 | 1,000 | 15.00 ± 0.00 | 3, 1 diverged |"
    assert found[2] == "| mmd-rep-b | simultaneous | 50.0 | - | 2,000 | - | 0 of 3 |"
    assert found[3] == "| mmd-rep-b | alternating | - | - | - | - | 0 of 3 |"
    write_costs(tmp_path, {setting("hinge"): 60.0, alternating: 600.0})
    assert lines_of(tables.updates, tmp_path)[1].endswith("| 200 | - | 3, 1 diverged |")


@given(st.floats(400, 2000))
def test_the_fid_between_two_evaluations_is_on_a_straight_line(tmp_path_factory: pytest.TempPathFactory, at: float):
    raw, run = tmp_path_factory.getbasetemp(), protocol.run_of(setting("hinge"), BEST, 0)
    write(raw, run, {iteration: 100 - iteration / 100 for iteration in CHECKPOINTS})
    found = results.outcome(raw, run)
    assert found is not None
    assert timing.fid_at(found, at) == pytest.approx(100 - at / 100)
    assert timing.fid_at(found, 399.9) is timing.fid_at(found, 2000.1) is None


def test_costs_stand_as_they_were_measured(tmp_path: Path):
    assert lines_of(tables.costs, tmp_path) == ["| - | - | - |"]
    write_costs(tmp_path, {setting("hinge"): 50, setting("mmd-rep-b", updates="alternating"): 81.23})
    assert lines_of(tables.costs, tmp_path) == [
        "| hinge | 50.0 | - |",
        "| mmd-rep-b, updates alternating | 81.2 | 1.2 % |",
    ]


def test_what_is_measured_of_the_cost_is_what_the_report_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    measured = (setting("hinge"), setting("smmd"), setting("mmd-rep", normalisation="matrix"))
    assert set(measured) <= set(costs.SETTINGS)
    monkeypatch.setattr(costs, "SETTINGS", measured)
    monkeypatch.setattr(costs, "WARM_UP", 0)
    assert study.main(["cost", "--raw", str(tmp_path), "--turns", "1"]) == 0
    found = timing.costs(tmp_path)
    assert tuple(found) == measured
    assert all(cost.milliseconds > 0 for cost in found.values())
    shares = [cost.share_of_loss for cost in found.values()]
    assert shares[1] is None
    assert all(0 < share < 1 for share in shares if share is not None)


# Pictures and the report


def write_everything(raw: Path, share: float) -> None:
    """Write the raw logs of the first runs of the study, and what stands beside them if it is complete."""
    generator = random.Random(0)
    runs = all_runs(dict.fromkeys(protocol.LOSSES, BEST))
    for run in runs[: int(share * len(runs))]:
        fid = generator.choice([math.inf, 50.0, *[5 + generator.random()] * 8])
        write(raw, run, 3 + generator.random() if run.pair == BEST else fid)
    if share == 1:
        every = [each for question in protocol.QUESTIONS.values() for each in question.settings]
        write_costs(raw, {chosen: 60 + generator.random() for chosen in every})
        floor = {"metrics": {"fid": 1.0, "kid_mean": 0.01, "class_coverage": 1.0}}
        (raw / "floor.json").write_text(json.dumps(floor) + "\n", encoding="utf-8")
        for run in sheets.chosen(raw).values():
            path = sheets.path(raw, run)
            path.parent.mkdir(exist_ok=True)
            record.sheet(torch.rand(64, 1, 32, 32) * 2 - 1).save(path)


PLACE = "# Name\n\n<!-- table of the study -->\n\n{}\n<!-- its end -->\n\nMore.\n"


@pytest.mark.parametrize(("share", "times"), [(0.05, 1), (0.3, 1), (1, 2)])
def test_the_report_is_made_of_the_raw_logs_alone_and_always_the_same(share: float, times: int, tmp_path: Path):
    pytest.importorskip("matplotlib")
    raw = tmp_path / "raw"
    write_everything(raw, share)
    found = []
    for name in ("once", "again")[:times]:
        root = tmp_path / name
        root.mkdir()
        (root / "README.md").write_text(PLACE.format("| old |"), encoding="utf-8")
        partial = [] if share == 1 else ["--partial"]
        assert study.main(["report", "--raw", str(raw), "--root", str(root), *partial]) == 0
        found.append({str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.*")})
    assert found[0] == found[-1]
    assert set(found[0]) == {
        "README.md",
        *(f"docs/_study/{name}.md" for name in report.TABLES),
        *(f"docs/_static/study-{name}.png" for name in report.PICTURES),
    }
    table = found[0]["docs/_study/losses.md"].decode()
    assert found[0]["README.md"].decode() == PLACE.format(table)
    for name in report.PICTURES:
        with Image.open(tmp_path / "once" / "docs" / "_static" / f"study-{name}.png") as picture:
            assert not picture.info.keys() - {"transparency"}
            assert len(found[0][f"docs/_static/study-{name}.png"]) < 200_000


def test_a_table_goes_to_its_one_place_in_the_readme():
    for readme in ("# Name\n", PLACE + PLACE):
        with pytest.raises(ValueError, match="expected one place for the table of the study in the README, got [02]"):
            report.with_table(readme, "| new |\n")


def test_tables_are_written_without_what_draws_the_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    (tmp_path / "README.md").write_text(PLACE, encoding="utf-8")
    write_everything(tmp_path / "raw", 0.05)
    assert study.main(["report", "--partial", "--raw", str(tmp_path / "raw"), "--root", str(tmp_path)]) == 1
    assert "the pictures need matplotlib and Pillow" in capsys.readouterr().out
    assert {path.stem for path in (tmp_path / "docs" / "_study").glob("*")} == set(report.TABLES)
    assert not (tmp_path / "docs" / "_static").exists()


def drawn(name: str, raw: Path) -> Any:
    """Return the figure of a picture."""
    figure = pytest.importorskip("matplotlib.figure").Figure()
    report.PICTURES[name].draw(figure, raw)
    return figure


def test_curves_are_means_over_seeds_with_all_seeds_in_the_band(tmp_path: Path):
    write_loss(tmp_path, "hinge", [3.0, 4.0, 8.0])
    write_loss(tmp_path, "smmd", [20.0, 6.0, math.inf])
    write_costs(tmp_path, {setting("hinge"): 50.0})
    by_iteration, by_time = drawn("curves", tmp_path).axes
    assert by_iteration.get_yscale() == by_time.get_yscale() == "log"
    hinge, smmd = by_iteration.lines
    assert [hinge.get_label(), smmd.get_label()] == ["hinge", "smmd"]
    assert list(hinge.get_xdata()) == list(CHECKPOINTS)
    assert list(hinge.get_ydata()) == [5.0] * 5
    assert list(smmd.get_ydata()) == [13.0] * 5
    (line,) = by_time.lines
    assert list(line.get_xdata()) == [20, 40, 60, 80, 100]
    assert tuple(series.STYLES) == protocol.LOSSES
    heights = by_iteration.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (3, 8)


def test_kernel_means_are_those_of_the_log(tmp_path: Path):
    write_loss(tmp_path, "mmd-rq", [3.0, 4.0, 8.0])
    panels = drawn("kernel-means", tmp_path).axes
    assert [axes.get_title() for axes in panels] == list(kernel_means.LOSSES)
    assert [len(axes.lines) for axes in panels] == [0, 3, 0, 0, 0, 0]
    assert [list(line.get_ydata()) for line in panels[1].lines] == [
        pytest.approx([value] * 3) for value in (0.5, 0.2, 0.8)
    ]


def test_bars_have_marks_where_runs_failed_or_are_open(tmp_path: Path):
    write_grid(tmp_path, setting("mmd-rep", **{"lambda": 2}), [3.0, 50.0, math.inf, 5.0])
    write(tmp_path, protocol.run_of(setting("mmd-rbf-b"), BEST, 0), 4.0)
    figure = drawn("lambda", tmp_path)
    assert [axes.get_title() for axes in figure.axes] == ["kernel = RBF", "kernel = RBF-B"]
    for axes, heights, marks in zip(figure.axes, ([3, 5, 50], [4]), ("^x" + "." * 20, "." * 23), strict=True):
        assert (
            sorted(bar.get_height() for bar in axes.patches if bar.get_width() < 0.21 and bar.get_height() > 1)
            == heights
        )
        assert sorted(line.get_marker() for line in axes.lines) == sorted(marks)
        assert axes.get_ylim() == (0, protocol.COLLAPSED)


def test_samples_are_the_first_images_of_each_sheet(tmp_path: Path):
    write_loss(tmp_path, "hinge", [3.0])
    path = sheets.path(tmp_path, sheets.chosen(tmp_path)["hinge"])
    path.parent.mkdir()
    shades = torch.linspace(-1, 1, 64)
    record.sheet(shades.reshape(64, 1, 1, 1).expand(64, 1, 32, 32)).save(path)
    expected = to_pixels(shades[: samples.COLUMNS]).tolist()
    pixels = samples.first(path)
    assert pixels.shape == (samples.SIDE, samples.COLUMNS * samples.SIDE)
    middle = samples.SIDE // 2
    assert pixels[middle, middle :: samples.SIDE].tolist() == expected
    assert pixels[0].tolist() == [255] * pixels.shape[1]
    (axes,) = drawn("samples", tmp_path).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == list(protocol.LOSSES)
    row = protocol.LOSSES.index("hinge")
    drawn_pixels = axes.images[0].get_array()
    assert (drawn_pixels[row * samples.SIDE : (row + 1) * samples.SIDE] == pixels).all()
    assert (drawn_pixels[: row * samples.SIDE] == 255).all()


def test_choices_have_error_bars_over_the_seeds_that_did_not_diverge(tmp_path: Path):
    write_loss(tmp_path, "mmd-rep", [3.0, 4.0, 5.0])
    write_seeds(tmp_path, setting("mmd-rep", scores=1), [6.0, math.inf, 8.0])
    write_seeds(tmp_path, setting("mmd-rep", normalisation="matrix", scale=3), [8.0])
    by_scores, by_scale = drawn("choices", tmp_path).axes
    ((line, _, (bars,)),) = by_scores.containers
    assert list(zip(line.get_xdata(), line.get_ydata(), strict=True)) == [(1, 7), (16, 4)]
    assert [tuple(segment[:, 1]) for segment in bars.get_segments()][1] == (3, 5)
    pico, pim = by_scale.containers
    assert list(pico[0].get_xdata()) == [1 / 0.55]
    assert list(zip(pim[0].get_xdata(), pim[0].get_ydata(), strict=True)) == [(3, 8)]


# The command, with stubs in place of the training and of the evaluation

EVALUATE = """
# Behaves like evaluate.py --all: distances of the checkpoints that are there.
import json, os, sys

run, overwrite, features, *rest = sys.argv[1:]
if features.endswith("broken.pt"):
    sys.exit("no network")
settings = dict(word.split("=") for word in os.path.basename(run).split(","))
os.makedirs(run + "/evaluations", exist_ok=True)
for name in sorted(os.listdir(run + "/checkpoints")):
    iteration = int(name[10:-3])
    fid = 10 / iteration + float(settings["lr-generator"]) + float(settings["seed"])
    origin = dict.fromkeys(("images", "extractor", "seed", "versions", "machine", "date", "command"), rest)
    origin["checkpoint"] = {"iteration": iteration}
    metrics = {"fid": fid, "kid_mean": fid / 100, "class_coverage": 1}
    with open(run + f"/evaluations/{name[:-3]}.json", "w") as file:
        json.dump({"metrics": metrics, "class_shares": {"measured": [1]}, "provenance": origin}, file)
"""


class Study:
    """A small study, by stubs."""

    def __init__(self, folder: Path):
        self.out, self.raw = folder / "runs", folder / "raw"
        (folder / "dcgan_fashion_mnist.py").write_text(TRAIN, encoding="utf-8")
        (folder / "evaluate.py").write_text(EVALUATE, encoding="utf-8")
        self.features = folder / "classifier.pt"
        self.features.touch()
        self.broken = folder / "broken.pt"
        self.broken.touch()

    def do(self, action: str, *words: str) -> int:
        own = [f"--out={self.out}"] if action in ("run", "list", "export") else []
        own += [f"--features={self.features}"] if action in ("run", "export") else []
        return study.main([action, f"--raw={self.raw}", *own, *words])

    def names(self) -> set[str]:
        return {path.stem for path in self.raw.glob("*.jsonl")}

    def traces(self) -> set[str]:
        return {f"{path.parent.name}: {path.read_text().split()}" for path in self.out.glob("*/trace")}


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    questions = {
        "losses": Question([setting("hinge"), setting("mmd-rep")], of_grid=True),
        "updates": Question([setting("mmd-rep"), setting("mmd-rep", updates="alternating")]),
    }
    monkeypatch.setattr(protocol, "QUESTIONS", questions)
    # With the second one, the stub of hinge diverges.
    monkeypatch.setattr(protocol, "PAIRS", (("0.001", "0.0001"), ("0.001", "0.001")))
    monkeypatch.setattr(protocol, "OPTIONS", ("--iterations=3",))
    monkeypatch.setattr(protocol, "ITERATIONS", 3)
    monkeypatch.setattr(command, "EXAMPLES", tmp_path)
    monkeypatch.setattr(command.prepared, "load", lambda *_, **__: None)
    return Study(tmp_path)


def expected_names() -> set[str]:
    rates = "lr-discriminator=0.001,lr-generator="
    grid = {f"loss={loss},{rates}{rate},seed=0" for loss in ("hinge", "mmd-rep") for rate in ("0.0001", "0.001")}
    settings = ("loss=hinge", "loss=mmd-rep", "loss=mmd-rep,updates=alternating")
    return grid | {f"{each},{rates}0.0001,seed={seed}" for each in settings for seed in (0, 1, 2)}


def test_a_study_runs_the_grid_then_the_best_and_repeats_nothing(stub: Study, capsys: pytest.CaptureFixture[str]):
    assert stub.do("list") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "4 missing"
    assert stub.do("run") == 0
    shown = capsys.readouterr().out
    assert "grid of the losses: 4 to do, 2 at a time" in shown
    assert "all: 7 to do, 2 at a time" in shown
    assert stub.names() == expected_names()
    before = {path: path.read_bytes() for path in stub.raw.rglob("*.*")}
    assert {path.name for path in (stub.raw / "sheets").glob("*")} == {
        f"loss={loss},lr-discriminator=0.001,lr-generator=0.0001,seed=0.png" for loss in ("hinge", "mmd-rep")
    }
    assert len(stub.traces()) == 11
    traces = stub.traces()
    assert stub.do("list") == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed[-1] == "10 finished, 1 diverged"
    lost = protocol.run_of(setting("hinge"), protocol.PAIRS[1], 0)
    assert [line.split()[1] for line in listed if line.startswith("diverged")] == [lost.name]
    assert stub.do("run") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{stage}: 0 to do, 2 at a time" for stage in ("grid of the losses", "all")
    ]
    # Whoever has the raw logs alone repeats nothing either.
    shutil.rmtree(stub.out)
    assert stub.do("run") == 0
    assert not stub.traces()
    assert len(traces) == 11
    assert {path: path.read_bytes() for path in stub.raw.rglob("*.*")} == before
    assert stub.do("list") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "10 finished, 1 diverged"
    diverged = results.outcome(stub.raw, lost)
    assert diverged is not None
    assert diverged.diverged


def test_a_study_goes_on_where_it_was_left(stub: Study):
    assert stub.do("run") == 0
    kept = sorted(stub.raw.glob("*.jsonl"))[::2]
    before = {path.name: path.read_bytes() for path in stub.raw.glob("*.jsonl")}
    for path in kept:
        path.unlink()
    assert stub.do("export") == 0
    assert {path.name: path.read_bytes() for path in stub.raw.glob("*.jsonl")} == before


@pytest.mark.parametrize("result", ["failed", "busy"])
def test_a_study_does_not_choose_before_all_pairs_are_through(result: str, stub: Study):
    if result == "failed":
        assert stub.do("run", f"--features={stub.broken}") == 1
        assert {name.split(",")[0] for name in stub.names()} == {"loss=hinge"}  # which diverged
    else:
        taken = protocol.run_of(setting("mmd-rep"), protocol.PAIRS[0], 0)
        with locked(stub.out / taken.name / "run.lock"):
            assert stub.do("run") == 1
        assert len(stub.names()) == 3
    assert not [name for name in stub.names() if "seed=0" not in name]
    assert stub.do("run") == 0
    assert stub.names() == expected_names()


def test_a_study_that_is_stopped_exports_what_is_through(
    stub: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    class Stopped(command.Workers):
        def do(self, runs: Sequence[Run]):
            super().do(runs[:1])
            raise SignalledError(signal.SIGTERM)

    monkeypatch.setattr(command, "Workers", Stopped)
    assert stub.do("run") == 128 + signal.SIGTERM
    assert "interrupted by SIGTERM; the same command goes on" in capsys.readouterr().out
    assert len(stub.names()) == 1


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        study.main(words)
    assert exit_.value.code == 2
    return capsys.readouterr().err


def test_what_cannot_be_measured_is_refused_before_it_is_trained(
    stub: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    where = ("run", f"--out={stub.out}", f"--raw={stub.raw}")
    assert "features: there is no x.pt" in refused(capsys, *where, "--features=x.pt")

    def nothing(*_: object, **__: object) -> None:
        raise MissingDataError("put the data there")

    monkeypatch.setattr(command.prepared, "load", nothing)
    assert "put the data there" in refused(capsys, *where, f"--features={stub.features}")
    assert not stub.out.exists()


def test_arguments_of_the_study_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert "--jobs: expected" in refused(capsys, "run", "--jobs=0")
    assert "raw: there are no raw logs of runs in" in refused(capsys, "report", f"--raw={tmp_path}")
    (tmp_path / "loss=hinge.jsonl").touch()
    assert "root: there is no README.md in" in refused(capsys, "report", f"--raw={tmp_path}", f"--root={tmp_path}")


# What the documentation says


def raw_logs() -> list[Path]:
    return sorted(command.RAW.glob("loss=*.jsonl"))


@pytest.mark.skipif(not raw_logs(), reason="no raw logs yet")
def test_the_raw_logs_are_those_of_the_study():
    runs = {run.name: run for run in all_runs(results.best_pairs(command.RAW))}
    for path in raw_logs():
        found = logs.read(path)["run"][0]
        assert found["settings"] == runs[path.stem].settings
        assert found["options"][:-1] == list(protocol.OPTIONS)
        assert found["configuration"]["iterations"] == protocol.ITERATIONS


@pytest.mark.skipif(not raw_logs(), reason="no raw logs yet")
def test_the_documentation_shows_what_the_raw_logs_say():
    fragments = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "_study").glob("*.md")}
    assert fragments == report.fragments(command.RAW), "python examples/study.py report"
    pictures = {path.name for path in (ROOT / "docs" / "_static").glob("study-*.png")}
    assert pictures == {f"study-{name}.png" for name in report.PICTURES}


def test_the_readme_has_the_table_of_losses_as_it_is():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert report.with_table(readme, (ROOT / "docs" / "_study" / "losses.md").read_text(encoding="utf-8")) == readme


def test_the_page_includes_all_tables_and_pictures():
    page = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^```{include} _study/(.+)\.md\n```$", page, re.MULTILINE)) == sorted(report.TABLES)
    assert sorted(re.findall(r"\]\(_static/study-(.+)\.png\)", page)) == sorted(report.PICTURES)
