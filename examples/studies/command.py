"""The command line of the study: run, list, export, cost and report."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from dcgan import prepared
from dcgan.atomic import NotWrittenError
from dcgan.reading import DamagedFileError
from dcgan.sources import SPLITS, MissingDataError
from evaluation.arguments import integer
from sweeps.attempt import Recipe, Result
from sweeps.devices import place
from sweeps.folders import Folder, Status
from sweeps.plan import Pair, Run
from sweeps.workers import SignalledError, Workers

from studies import costs, logs, protocol, results, sheets
from studies.report import check, report
from studies.tables.losses import FLOOR

EXAMPLES = Path(__file__).parents[1]

RAW = EXAMPLES / "studies" / "fashion_mnist"
"""The raw logs in the repository."""


def main(description: str, arguments: Sequence[str]) -> int:
    """Do what a command line says, and return the exit status."""
    parser = _parser(description)
    options = parser.parse_args(arguments)
    options.refuse = parser.error
    actions = {"run": run, "list": list_runs, "export": export, "cost": cost, "report": write_report}
    try:
        return actions[options.action](options)
    except (DamagedFileError, NotWrittenError) as error:
        parser.error(str(error))


def run(options: argparse.Namespace) -> int:
    """Bring all runs to their end: first what decides the best learning rates, then what needs them."""
    _check(options)
    recipe = _recipe(options)
    workers = [place("cpu", 1)] * options.jobs
    for stage in ("grid of the losses", "all"):
        runs = _waiting(options, _planned(options, whole=stage == "all"))
        print(f"{stage}: {len(runs)} to do, {options.jobs} at a time", flush=True)
        try:
            found = Workers(recipe, workers, _say).do(runs)
        except SignalledError as interrupted:
            print(f"{interrupted}; the same command goes on", flush=True)
            return 128 + interrupted.number
        finally:
            export(options)
        if found[Result.FAILED] or found[Result.BUSY]:
            return 1
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuse what could not be measured, before anything is trained."""
    if not Path(options.features).is_file():
        options.refuse(f"features: there is no {options.features}; examples/classifier.py makes it")
    try:
        for split in SPLITS:
            prepared.load(protocol.NAME, Path(options.data_root), size=32, channels=1, split=split)
    except MissingDataError as error:
        options.refuse(str(error))


def list_runs(options: argparse.Namespace) -> int:
    """Print the runs that are known, and how far they are."""
    counts = Counter[str]()
    for each in _planned(options):
        ended = results.outcome(options.raw, each)
        if ended is None:
            status = Folder(options.out / each.name).status()
        else:
            status = Status.DIVERGED if ended.diverged else Status.FINISHED
        counts[status.value] += 1
        print(f"{status.value:11} {each.name}")
    print(", ".join(f"{count} {status}" for status, count in counts.items()))
    return 0


def export(options: argparse.Namespace) -> int:
    """Write the raw logs of all runs that have come to their end, and the samples of the best ones."""
    evaluation = _recipe(options).evaluation or ""
    # Those of the grid first: they decide which others there are.
    for whole in (False, True):
        for each in _planned(options, whole=whole):
            if logs.export(Folder(options.out / each.name), options.raw, evaluation=evaluation):
                print(f"exported {each.name}", flush=True)
    for each in sheets.export(options.out, options.raw):
        print(f"exported the samples of {each.name}", flush=True)
    return 0


def cost(options: argparse.Namespace) -> int:
    """Measure what an iteration of each setting costs, and write it to the raw logs."""
    found = costs.measure(costs.SETTINGS, options.turns)
    costs.write(options.raw / costs.FILE, found)
    for line in found:
        print(f"{line['milliseconds']:8.1f} ms  {line['settings']}")
    return 0


def write_report(options: argparse.Namespace) -> int:
    """Write the report, unless raw logs are missing and the user does not know that."""
    check(options)
    names = [*(f"{each.name}.jsonl" for each in _waiting(options, _planned(options))), costs.FILE, FLOOR]
    missing = [name for name in names if not (options.raw / name).exists()]
    if missing and not options.partial:
        listed = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        options.refuse(f"raw: {len(missing)} files are missing in {options.raw}: {listed}; --partial goes without them")
    return report(options)


def _planned(options: argparse.Namespace, *, whole: bool = True) -> list[Run]:
    """Return the runs in the order of the questions, as far as they are decided."""
    questions = protocol.QUESTIONS
    best: Mapping[str, Pair] = results.best_pairs(options.raw)
    runs = protocol.grid(questions["losses"])
    if whole:
        for question in questions.values():
            runs += protocol.grid(question) + protocol.at_best(question, best)
    return protocol.unique(runs)


def _waiting(options: argparse.Namespace, runs: Sequence[Run]) -> list[Run]:
    """Return the runs without raw log: whoever has the repository repeats none of them."""
    return [each for each in runs if not (options.raw / f"{each.name}.jsonl").exists()]


def _recipe(options: argparse.Namespace) -> Recipe:
    return Recipe(
        protocol.NAME,
        options.out,
        [sys.executable, str(EXAMPLES / f"{protocol.SCRIPT}.py")],
        [*protocol.OPTIONS, f"--data-root={options.data_root}"],
        [sys.executable, str(EXAMPLES / "evaluate.py")],
        shlex.join([f"--features={options.features}", *protocol.EVALUATION]),
    )


def _say(message: str) -> None:
    print(message, flush=True)


def _parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    actions = parser.add_subparsers(dest="action", required=True)
    found = {
        name: actions.add_parser(name, help=meaning, allow_abbrev=False)
        for name, meaning in (
            ("run", "do what is not done yet; may be stopped at any moment and given again"),
            ("list", "list the runs, and how far they are"),
            ("export", "write raw logs of what is done"),
            ("cost", "measure the CPU time of an iteration of each setting side by side"),
            ("report", "make tables and pictures of the raw logs"),
        )
    }
    for action in found.values():
        action.add_argument("--raw", type=Path, default=RAW, help="folder of the raw logs (that of the repository)")
    for name in ("run", "list", "export"):
        add = found[name].add_argument
        add("--out", type=Path, default=Path("runs/study"), help="folder of the runs (%(default)s)")
        add("--data-root", default="data", help="folder of the data sets (%(default)s)")
        add(
            "--features",
            default="runs/classifiers/fashion-mnist.pt",
            help="what examples/classifier.py made (%(default)s)",
        )
    found["run"].add_argument(
        "--jobs", type=integer(1), default=2, help="runs side by side, of one thread each (%(default)s)"
    )
    found["cost"].add_argument("--turns", type=integer(1), default=40, help="iterations of each setting (%(default)s)")
    found["report"].add_argument(
        "--root", type=Path, default=EXAMPLES.parent, help="where README.md and docs are (the repository)"
    )
    found["report"].add_argument(
        "--partial", action="store_true", help="report on what there is if raw logs are missing"
    )
    return parser
