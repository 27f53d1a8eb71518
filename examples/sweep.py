"""Run, list and collect the sweeps of Wang et al. (2019) over losses, lambda, the constant C and the scores."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro
from sweeps import tables
from sweeps.runs import (
    PAIR,
    SWEEPS,
    Group,
    Pair,
    Recipe,
    Run,
    last_line,
    plan,
    record,
    status,
    write,
)
from training.errors import RefusedError
from training.files import replacing, write_text

EPILOG = """What follows -- goes to the training script as it is, for example -- --data-root data --iterations 50000.
Exit status: 0 if all runs are done, 1 if some are not, 2 if this cannot be done, 3 if other processes have the rest."""
OWN = {"out", "resume", "seed", "dry-run", *PAIR}
"""Options of the training script that the sweep gives."""


@dataclass
class Collect:
    """Write a table, a summary and a figure of what there is."""

    study: tyro.conf.Positional[Literal["table1", "lambda", "constant", "scores"]]
    """What is varied."""
    out: Path
    """Folder of the sweep."""
    metric: Literal["fid", "kid_mean"] = "fid"
    """What is best; lower is better."""
    evaluations: str = "*.json"
    """Which files of a run's evaluations count; of several, the last by name."""
    limit: float | None = None
    """Where the vertical axis of the figure ends."""

    def do(self) -> int:
        """Write the files and print the summary."""
        sweep, rows = SWEEPS[self.study], tables.rows_of(self.study, self.out, self.evaluations)
        if not rows:
            raise RefusedError(f"{self.out} has no runs of {self.study}")
        table, page, picture = (self.out / f"{self.study}.{ending}" for ending in ("csv", "md", "png"))
        tables.write_csv(table, rows)
        write_text(page, tables.summary(sweep.meaning, rows, self.metric))
        try:
            from matplotlib.figure import Figure
        except ModuleNotFoundError as error:
            raise RefusedError(f"{table} and {page} are written, but the figure needs matplotlib: {error}") from error
        panels = {tuple(item for item in row.run.group if item[0] not in sweep.axis) for row in rows}
        figure = Figure(figsize=(11, max(3.9, 0.6 + 2.4 * len(panels))), layout="constrained")
        tables.draw(figure, rows, sweep.axis, self.metric, self.limit)
        with replacing(picture) as partial:
            figure.savefig(partial, format="png")
        print(page.read_text(encoding="utf-8"))
        print(f"Runs: {table}; summary: {page}; figure: {picture}")
        return 0


@dataclass
class Train:
    """Train what is not done yet."""

    recipe: tyro.conf.OmitArgPrefixes[Recipe]
    losses: str = ""
    """In place of those of the sweep, with commas between them."""
    vary: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """OPTION=VALUE,... of the training script, in place of the sweep's or besides; no values leave it to the script."""
    pairs: str = ""
    """Learning rates D/G,... (the paper's 16); best: the pair of each setting that is best with its first seed."""
    seeds: str = "0"
    """With commas between them."""
    share: str = "0/1"
    """I/N does the I-th of N shares, counted from 0: for the array jobs of a scheduler."""
    evaluations: str = "*.json"
    """Which files of a run's evaluations count; of several, the last by name."""

    def do(self) -> int:
        """Bring the chosen runs to their end."""
        recipe, runs = self.recipe, self.runs()
        mine = self.mine(runs)
        for path in (recipe.script, *([] if recipe.evaluate is None else [recipe.evaluator])):
            if not path.is_file():
                raise RefusedError(f"there is no {path}")
        # Refuse what the script would refuse, before anything is started.
        for each in {tuple(run.settings): run for run in reversed(runs)}.values():
            dry = subprocess.run(recipe.training(each, "--dry-run"), capture_output=True, text=True)
            if dry.returncode:
                raise RefusedError(f"{recipe.script.name} refuses {each.name}: {dry.stderr.strip()}")
        for each in runs:
            if record(recipe.out / each.name) is None:
                write(recipe.out / each.name, recipe.fresh(each))
        from sweeps import tuning

        print(count(recipe.out, mine), flush=True)
        ended = tuning.do(recipe, mine)
        print(count(recipe.out, mine), flush=True)
        return ended

    def runs(self) -> list[Run]:
        """Return the runs that all shares have together."""
        if self.recipe.study not in SWEEPS:
            raise RefusedError(f"expected one of {', '.join(SWEEPS)}, got {self.recipe.study}")
        sweep, vary = SWEEPS[self.recipe.study], {}
        for words in (*self.vary, *([f"loss={self.losses}"] if self.losses else [])):
            option, equals, values = words.partition("=")
            if not option or not equals:
                raise RefusedError(f"--vary: expected OPTION=VALUE,..., got {words}")
            vary[option] = values.split(",") if values else []
        given = {word.removeprefix("--").partition("=")[0] for word in self.recipe.options if word.startswith("--")}
        varied = {option for grid in (*sweep.grids, vary) for option in grid}
        if decided := OWN & {*vary, *given} | varied & given:
            raise RefusedError(f"--{min(decided)} is given by the sweep; see --vary, --pairs and --seeds")
        if not re.fullmatch(r"\d+(,\d+)*", self.seeds):
            raise RefusedError(f"--seeds: expected whole numbers >= 0, got {self.seeds}")
        seeds = [int(seed) for seed in self.seeds.split(",")]
        if self.pairs == "best":
            return plan(sweep, vary, self.best(), seeds)
        pairs = [tuple(pair.split("/")) for pair in self.pairs.split(",") if pair]
        if any(len(pair) != 2 for pair in pairs):
            raise RefusedError(f"--pairs: expected best, or pairs such as 5e-4/2e-4, got {self.pairs}")
        return plan(sweep, vary, [(d, g) for d, g in pairs], seeds)

    def best(self) -> dict[Group, Pair]:
        """Return the best pair of each setting with a result for all pairs of its first seed."""
        found = {}
        for group, rows in tables.groups(tables.rows_of(self.recipe.study, self.recipe.out, self.evaluations)).items():
            first, pair = tables.first_seed(rows), tables.best(rows, self.recipe.metric)
            if pair and all(self.recipe.metric in row.metrics or row.status == "diverged" for row in first):
                found[group] = pair
            else:
                settings = ",".join(map("=".join, group))
                print(f"{settings}: some runs of the first seed have no result yet; left out", file=sys.stderr)
        if not found:
            raise RefusedError("--pairs best: there are no settings with a result for all pairs of their first seed")
        return found

    def mine(self, runs: Sequence[Run]) -> Sequence[Run]:
        """Return the share of a job."""
        share = re.fullmatch(r"(\d+)/(\d+)", self.share)
        if not share or int(share[1]) >= int(share[2]):
            raise RefusedError(f"--share: expected I/N with I from 0 to N - 1, got {self.share}")
        return runs[int(share[1]) :: int(share[2])]


class List(Train):
    """List the chosen runs, and how far they are."""

    def do(self) -> int:
        """Print a line for each."""
        runs = self.mine(self.runs())
        for each in runs:
            folder = self.recipe.out / each.name
            print(f"{status(folder):11} {last_line(folder)['iteration']:>9,}  {each.name}")
        print(count(self.recipe.out, runs))
        return 0


def count(out: Path, runs: Sequence[Run]) -> str:
    """Say how many runs are how far."""
    counts = Counter(status(out / each.name) for each in runs)
    return f"{len(runs)} runs: {', '.join(f'{number} {name}' for name, number in counts.items())}"


COMMANDS: dict[str, Callable[..., Any]] = {"run": Train, "list": List, "collect": Collect}


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says, and return the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    end = words.index("--") if "--" in words else len(words)
    try:
        command = tyro.extras.subcommand_cli_from_dict(COMMANDS, args=words[:end], description=f"{__doc__}\n\n{EPILOG}")
        if isinstance(command, Train):
            command.recipe = replace(command.recipe, options=tuple(words[end + 1 :])).absolute()
        return command.do()
    except (RefusedError, OSError) as error:
        print(f"sweep.py: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
