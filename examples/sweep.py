"""Run a sweep of Wang et al. (2019), over losses, lambda, the constant C or the number of scores, and collect it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

if __name__ == "__main__":  # before tyro, so that all missing packages are named at once
    import training  # noqa: F401

import tyro
from sweeps import tables
from sweeps.runs import EXAMPLES, PAIR, PAIRS, SWEEPS, Group, Pair, Recipe, Run, plan, record, write
from training import need
from training.errors import RefusedError
from training.files import replacing, write_text

EPILOG = """Arguments after -- are passed to the training script, for example: -- --data-root data --iterations 50000.
Exit status: 0 if all runs are finished, 1 if some are not, 2 if the command cannot be carried out."""
Name = Literal["table1", "lambda", "constant", "scores"]
OWN = {"out", "resume", "seed", "dry-run", *PAIR}  # options of the training script that the sweep sets


@dataclass
class Collect:
    """Write a table, a summary and a figure of the results so far."""

    study: tyro.conf.Positional[Name]  # the sweep
    out: Path  # folder of the sweep
    metric: Literal["fid", "kid_mean"] = "fid"  # metric that ranks runs; lower is better
    evaluations: str = "*.json"  # names of the evaluations that count; of several, the last
    limit: float | None = None  # upper end of the vertical axis of the figure

    def do(self) -> int:
        sweep, found = SWEEPS[self.study], tables.results(self.study, self.out, self.evaluations)
        if not found:
            raise RefusedError(f"{self.out} has no runs of {self.study}")
        table, page, picture = (self.out / f"{self.study}.{ending}" for ending in ("csv", "md", "png"))
        tables.write_csv(table, found)
        summary = tables.summary(sweep.meaning, found, self.metric)
        write_text(page, summary)
        print(f"{summary}\nRuns: {table}; summary: {page}", flush=True)
        need("matplotlib")
        from matplotlib.figure import Figure

        figure = Figure(layout="constrained")
        tables.draw(figure, found, sweep.axis, self.metric, self.limit)
        figure.set_size_inches(11, max(3.9, 0.6 + 2.4 * len(figure.axes)))
        with replacing(picture) as partial:
            figure.savefig(partial, format="png")
        print(f"Figure: {picture}")
        return 0


@dataclass(frozen=True)
class Train(Recipe):
    """Run the remaining trainings, and evaluate them if --evaluate is given."""

    study: tyro.conf.Positional[Name]  # the sweep
    losses: str = ""  # losses instead of those of the sweep, separated by commas
    vary: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """OPTION=VALUE,...: values of an option of the training script; OPTION= leaves it at the default of the script"""
    pairs: str = ""
    """learning rates D/G,...; by default the paper's 16 pairs; best: best pair of each setting with its first seed"""
    seeds: str = "0"  # seeds, separated by commas
    share: str = "0/1"  # I/N runs share I of N, counted from 0: for array jobs of a scheduler
    evaluations: str = "*.json"  # names of the evaluations that count; of several, the last

    def do(self) -> int:
        runs = self.runs()
        if self.evaluate is not None and not (evaluator := self.script.with_name("evaluate.py")).is_file():
            raise RefusedError(f"--evaluate: there is no {evaluator}")
        where = f"the Ray cluster {self.address}" if self.address else "this machine"
        print(f"{self.count(runs)}; by {self.script.name} on {where}, in {self.out}", flush=True)
        print(f"Checking the settings with {self.script.name}", flush=True)
        # Options that the script would refuse are refused before the first training. Grids differ in their options.
        for each in {tuple(run.settings): run for run in reversed(runs)}.values():
            dry = subprocess.run(self.training(each, "--dry-run"), capture_output=True, text=True)
            if dry.returncode:
                raise RefusedError(f"{self.script.name} refuses {each.name}: {dry.stderr.strip()}")
        for each in runs:  # folders of several shares can then be copied into one
            if "study" not in record(self.out / each.name):
                write(self.out / each.name, self.fresh(each))
        if all(map(self.is_done, runs)):
            return 0
        need("ray")
        print("Starting Ray, which can take a minute", flush=True)
        from sweeps import tuning

        # Ray copies the recipe to its processes, which do not need the options of this script.
        ended = tuning.do(Recipe(**{each.name: getattr(self, each.name) for each in fields(Recipe)}), runs)
        print(f"{self.count(runs)}{'; the same command continues' if ended else ''}", flush=True)
        return ended

    def runs(self) -> list[Run]:
        """Return the runs of this share."""
        sweep, vary = SWEEPS[self.study], {}
        if self.losses and "" in self.losses.split(","):
            raise RefusedError(f"--losses: expected LOSS,..., got {self.losses}")
        for words in (*self.vary, *([f"loss={self.losses}"] if self.losses else [])):
            option, equals, values = words.partition("=")
            option = option.replace("_", "-")  # tyro accepts both
            vary[option] = values.split(",") if values else []
            if not option or not equals or "" in vary[option]:
                raise RefusedError(f"--vary: expected OPTION=VALUE,..., got {words}")
        given = {word[2:].partition("=")[0].replace("_", "-") for word in self.options if word.startswith("--")}
        varied = {option for grid in (*sweep.grids, vary) for option in grid}
        if decided := OWN & {*vary, *given} | varied & given:
            raise RefusedError(f"--{min(decided)} is set by the sweep; see --vary, --pairs and --seeds")
        if not re.fullmatch(r"\d+(,\d+)*", self.seeds):
            raise RefusedError(f"--seeds: expected whole numbers >= 0, got {self.seeds}")
        if not re.fullmatch(r"(best|[^/,]+/[^/,]+(,[^/,]+/[^/,]+)*)?", self.pairs):
            raise RefusedError(f"--pairs: expected best, or pairs such as 5e-4/2e-4, got {self.pairs}")
        share = re.fullmatch(r"(\d+)/(\d+)", self.share)
        if not share or int(share[1]) >= int(share[2]):
            raise RefusedError(f"--share: expected I/N with I from 0 to N - 1, got {self.share}")
        best = self.best() if self.pairs == "best" else {}
        pairs = best.values() or [(d, g) for d, _, g in (pair.partition("/") for pair in self.pairs.split(",") if pair)]
        runs = plan(sweep, vary, pairs or PAIRS, [int(seed) for seed in self.seeds.split(",")])
        runs = [run for run in runs if not best or best.get(run.group) == run.pair]
        return runs[int(share[1]) :: int(share[2])]

    def best(self) -> dict[Group, Pair]:
        """Return the best pairs of the settings with results for all pairs of their first seed."""
        found = {}
        for group, of in tables.groups(tables.results(self.study, self.out, self.evaluations)).items():
            pair = tables.best(of, self.metric)
            if pair and all(self.metric in each.metrics or each.diverged for each in tables.first_seed(of)):
                found[group] = pair
            else:
                settings = ",".join(map("=".join, group))
                print(f"{settings}: some runs of the first seed have no result yet; left out", file=sys.stderr)
        if not found:
            raise RefusedError("--pairs best: there are no settings with a result for all pairs of their first seed")
        return found

    def count(self, runs: Sequence[Run]) -> str:
        """Return the number of runs, and of those with each status."""
        return f"{len(runs)} runs: {tables.counted(record(self.out / each.name)['status'] for each in runs)}"


class List(Train):
    """List the chosen runs and their progress."""

    def do(self) -> int:
        for each in (runs := self.runs()):
            found = record(self.out / each.name)
            print(f"{found['status']:11} {found['iteration']:>9,}  {each.name}")
        print(self.count(runs))
        return 0


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    end = words.index("--") if "--" in words else len(words)
    commands: dict[str, Any] = {"run": Train, "list": List, "collect": Collect}
    try:
        command = tyro.extras.subcommand_cli_from_dict(commands, args=words[:end], description=f"{__doc__}\n\n{EPILOG}")
        if isinstance(command, Train):
            script = command.script if command.script.suffix == ".py" else EXAMPLES / f"{command.script}.py"
            options = tuple(words[end + 1 :])
            command = replace(command, out=command.out.absolute(), script=script.absolute(), options=options)
        return command.do()
    except (RefusedError, OSError) as error:
        print(f"sweep.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sweep.py: interrupted before a run was started", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
