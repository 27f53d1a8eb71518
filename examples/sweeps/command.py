"""The three commands: run, list and collect."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NoReturn

from dcgan.atomic import NotWrittenError, naming, write_text
from dcgan.reading import DamagedFileError

from sweeps import figure
from sweeps.attempt import Recipe, Result
from sweeps.devices import place
from sweeps.folders import Folder, Status
from sweeps.grids import STUDIES
from sweeps.options import read
from sweeps.plan import Group, Pair, Run, plan, share
from sweeps.results import best, first_seed, groups, is_known, rows_of, write_csv
from sweeps.summary import summary
from sweeps.workers import SignalledError, Workers

BUSY = 3
"""The exit status if nothing failed, but other processes have some of the runs."""


def main(description: str, arguments: Sequence[str]) -> int:
    """Do what a command line says, and return the exit status."""
    options = read(description, arguments)
    refuse: Callable[[str], NoReturn] = options.refuse
    try:
        return {"run": run, "list": list_runs, "collect": collect}[options.action](options)
    except (DamagedFileError, NotWrittenError) as error:
        refuse(str(error))


def run(options: argparse.Namespace) -> int:
    """Bring the chosen runs to their end."""
    runs = _all(options)
    mine = _mine(options, runs)
    recipe = Recipe(
        options.study,
        options.out,
        [sys.executable, str(options.script)],
        options.train,
        [sys.executable, str(options.evaluator)],
        options.evaluate,
        options.retry,
    )
    try:
        places = [place(device, options.threads) for device in options.devices]
    except ValueError as error:
        options.refuse(str(error))
    if options.evaluate is not None and not options.evaluator.is_file():
        options.refuse(f"evaluate: there is no {options.evaluator}")
    _check(options, recipe, runs)
    for each in runs:
        with naming(recipe.folder(each).path):
            if recipe.folder(each).description() is None:
                recipe.folder(each).describe(recipe.description(each))
    jobs = options.jobs or len(places)
    _say(f"{_count(mine, options)}; {jobs} at a time")
    try:
        results = Workers(recipe, [places[job % len(places)] for job in range(jobs)], _say).do(mine)
    except SignalledError as interrupted:
        _say(f"{_count(mine, options)}; {interrupted}")
        return 128 + interrupted.number
    _say(_count(mine, options))
    return 1 if results[Result.FAILED] else BUSY if results[Result.BUSY] else 0


def list_runs(options: argparse.Namespace) -> int:
    """Print the chosen runs, and how far they are."""
    runs = _mine(options, _all(options))
    for each in runs:
        folder = Folder(options.out / each.name)
        print(f"{folder.status().value:11} {folder.iteration():>9,}  {each.name}")
    print(_count(runs, options))
    return 0


def collect(options: argparse.Namespace) -> int:
    """Write the table of the runs, the summary and the figure."""
    study = STUDIES[options.study]
    rows = rows_of(study, options.study, options.out, options.evaluations)
    if not rows:
        options.refuse(f"{options.out} has no runs of {options.study}")
    table, page, picture = (options.out / f"{options.study}.{ending}" for ending in ("csv", "md", "png"))
    write_csv(table, rows)
    write_text(page, summary(study.meaning, rows, options.metric))
    try:
        figure.save(picture, study, rows, options.metric, options.limit)
    except ModuleNotFoundError as error:
        options.refuse(f"{table} and {page} are written, but the figure needs matplotlib and Pillow: {error}")
    print(page.read_text(encoding="utf-8"))
    print(f"Runs: {table}; summary: {page}; figure: {picture}")
    return 0


def _all(options: argparse.Namespace) -> list[Run]:
    """Return the runs that all shares of the sweep have together."""
    vary = dict(options.vary) | ({"loss": options.losses} if options.losses else {})
    pairs = _best_pairs(options) if options.pairs == "best" else options.pairs
    runs = plan(STUDIES[options.study], vary=vary, pairs=pairs, seeds=options.seeds)
    if not runs:
        options.refuse(f"pairs: {options.out} has no setting yet with a result for all pairs of its first seed")
    return runs


def _best_pairs(options: argparse.Namespace) -> dict[Group, Pair]:
    rows = rows_of(STUDIES[options.study], options.study, options.out, options.evaluations)
    pairs = {}
    for group, of_group in groups(rows).items():
        found = best(of_group, options.metric)
        unknown = sum(not is_known(row, options.metric) for row in first_seed(of_group))
        if found is None or unknown:
            settings = ",".join(f"{option}={value}" for option, value in group)
            print(f"{settings}: {unknown} runs of the first seed have no result yet; left out", file=sys.stderr)
        else:
            pairs[group] = found.pair
    return pairs


def _mine(options: argparse.Namespace, runs: Sequence[Run]) -> Sequence[Run]:
    """Return the share of a job in an array of jobs."""
    if options.index is None and options.of is None:
        return runs
    if options.index is None or options.of is None or options.index >= options.of:
        options.refuse(f"expected --index below --of, got {options.index} and {options.of}")
    return share(runs, options.index, options.of)


def _check(options: argparse.Namespace, recipe: Recipe, runs: Sequence[Run]) -> None:
    """Refuse what the script would refuse, before anything is started."""
    for each in {tuple(run.settings): run for run in reversed(runs)}.values():
        command = [*recipe.script, *recipe.options, *each.options, "--dry-run"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            options.refuse(f"{options.script.name} refuses {each.name}: {done.stderr.strip()}")


def _count(runs: Sequence[Run], options: argparse.Namespace) -> str:
    counts = Counter(Folder(options.out / each.name).status() for each in runs)
    listed = ", ".join(f"{counts[status]} {status.value}" for status in Status if counts[status])
    return f"{len(runs)} runs: {listed}"


def _say(message: str) -> None:
    print(message, flush=True)
