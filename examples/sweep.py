"""Run, list and collect the sweeps of Wang et al. (2019) over losses, lambda, the constant C and the scores."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

if __name__ == "__main__":  # before tyro, so that all packages that are missing are named at once
    import training  # noqa: F401

import tyro
from sweeps import tables
from sweeps.runs import EXAMPLES, PAIR, SWEEPS, Group, Pair, Recipe, Run, last_line, plan, record, status, write
from training import need
from training.errors import RefusedError
from training.files import replacing, write_text

EPILOG = """What follows -- goes to the training script as it is, for example -- --data-root data --iterations 50000.
Exit status: 0 if all runs are done, 1 if some are not, 2 if this cannot be done, 3 if other processes have the rest."""
OWN = {"out", "resume", "seed", "dry-run", *PAIR}
"""Options of the training script that the sweep gives."""


@dataclass
class Collect:
    """Write a table, a summary and a figure of what there is."""

    study: tyro.conf.Positional[Literal["table1", "lambda", "constant", "scores"]]  # what is varied
    out: Path  # folder of the sweep
    metric: Literal["fid", "kid_mean"] = "fid"  # what is best; lower is better
    evaluations: str = "*.json"  # which files of a run's evaluations count; of several, the last by name
    limit: float | None = None  # where the vertical axis of the figure ends

    def do(self) -> int:
        """Write the files and print the summary."""
        sweep, rows = SWEEPS[self.study], tables.rows_of(self.study, self.out, self.evaluations)
        if not rows:
            raise RefusedError(f"{self.out} has no runs of {self.study}")
        table, page, picture = (self.out / f"{self.study}.{ending}" for ending in ("csv", "md", "png"))
        tables.write_csv(table, rows)
        summary = tables.summary(sweep.meaning, rows, self.metric)
        write_text(page, summary)
        try:
            from matplotlib.figure import Figure
        except ModuleNotFoundError as error:
            raise RefusedError(f"{table} and {page} are written, but the figure needs matplotlib: {error}") from error
        figure = Figure(layout="constrained")
        tables.draw(figure, rows, sweep.axis, self.metric, self.limit)
        figure.set_size_inches(11, max(3.9, 0.6 + 2.4 * len(figure.axes)))
        with replacing(picture) as partial:
            figure.savefig(partial, format="png")
        print(f"{summary}\nRuns: {table}; summary: {page}; figure: {picture}")
        return 0


@dataclass
class Train:
    """Train what is not done yet."""

    recipe: tyro.conf.OmitArgPrefixes[Recipe]
    losses: str = ""  # in place of those of the sweep, with commas between them
    vary: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """OPTION=VALUE,... of the training script, in place of the sweep's or besides; no values leave it to the script."""
    pairs: str = ""
    """Learning rates D/G,... (the paper's 16); best: the pair of each setting that is best with its first seed."""
    seeds: str = "0"  # with commas between them
    share: str = "0/1"  # I/N does the I-th of N shares, counted from 0: for the array jobs of a scheduler
    evaluations: str = "*.json"  # which files of a run's evaluations count; of several, the last by name

    def do(self) -> int:
        """Bring the chosen runs to their end."""
        recipe, (runs, mine) = self.recipe, self.runs()
        for path in (recipe.script, *([] if recipe.evaluate is None else [recipe.evaluator])):
            if not path.is_file():
                raise RefusedError(f"there is no {path}")
        where = f"the Ray cluster {recipe.address}" if recipe.address else "this machine"
        print(f"{count(recipe.out, mine)}; by {recipe.script.name} on {where}, in {recipe.out}", flush=True)
        # Refuse what the script would refuse, before anything is started.
        print(f"Asking {recipe.script.name} whether it takes the settings", flush=True)
        for each in {tuple(run.settings): run for run in reversed(runs)}.values():
            dry = subprocess.run(recipe.training(each, "--dry-run"), capture_output=True, text=True)
            if dry.returncode:
                raise RefusedError(f"{recipe.script.name} refuses {each.name}: {dry.stderr.strip()}")
        for each in runs:
            if record(recipe.out / each.name) is None:
                write(recipe.out / each.name, recipe.fresh(each))
        if all(map(recipe.is_done, mine)):
            return 0
        need("ray")
        print("Starting Ray, which can take a minute", flush=True)
        from sweeps import tuning

        ended = tuning.do(recipe, mine)
        print(f"{count(recipe.out, mine)}{'; the same command goes on with what is left' if ended else ''}", flush=True)
        return ended

    def runs(self) -> tuple[list[Run], list[Run]]:
        """Return the runs that all shares have together, and those of this one."""
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
        if not re.fullmatch(r"(best|[^/,]+/[^/,]+(,[^/,]+/[^/,]+)*)?", self.pairs):
            raise RefusedError(f"--pairs: expected best, or pairs such as 5e-4/2e-4, got {self.pairs}")
        share = re.fullmatch(r"(\d+)/(\d+)", self.share)
        if not share or int(share[1]) >= int(share[2]):
            raise RefusedError(f"--share: expected I/N with I from 0 to N - 1, got {self.share}")
        pairs = [(d, g) for d, _, g in (pair.partition("/") for pair in self.pairs.split(",") if pair)]
        seeds = [int(seed) for seed in self.seeds.split(",")]
        runs = plan(sweep, vary, self.best() if self.pairs == "best" else pairs, seeds)
        return runs, runs[int(share[1]) :: int(share[2])]

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


class List(Train):
    """List the chosen runs, and how far they are."""

    def do(self) -> int:
        """Print a line for each."""
        _, mine = self.runs()
        for each in mine:
            folder = self.recipe.out / each.name
            print(f"{status(folder):11} {last_line(folder)['iteration']:>9,}  {each.name}")
        print(count(self.recipe.out, mine))
        return 0


def count(out: Path, runs: Sequence[Run]) -> str:
    """Say how many runs are how far."""
    return f"{len(runs)} runs: {tables.counted(status(out / each.name) for each in runs)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says, and return the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    end = words.index("--") if "--" in words else len(words)
    commands: dict[str, Any] = {"run": Train, "list": List, "collect": Collect}
    try:
        command = tyro.extras.subcommand_cli_from_dict(commands, args=words[:end], description=f"{__doc__}\n\n{EPILOG}")
        if isinstance(command, Train):
            recipe, options = command.recipe, tuple(words[end + 1 :])
            script = recipe.script if recipe.script.suffix == ".py" else EXAMPLES / f"{recipe.script}.py"
            command.recipe = replace(recipe, out=recipe.out.absolute(), script=script.absolute(), options=options)
        return command.do()
    except (RefusedError, OSError) as error:
        print(f"sweep.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sweep.py: interrupted before a run was started", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
