"""Run the study of losses on Fashion-MNIST, and write the tables and pictures of its report."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before tyro, so that all missing packages are named at once
    import training  # noqa: F401

import tyro
from studies import pictures, protocol
from studies.logs import Grid
from studies.tables import COSTS, FLOOR, TABLES
from sweeps.runs import EXAMPLES, Recipe, Run, record
from sweeps.tables import counted
from training.errors import RefusedError
from training.files import write_text

BLOCK = re.compile(r"(?<=<!-- table of the study -->\n\n).*?(?=\n<!-- its end -->)", re.DOTALL)
"""The table of losses in the README."""


@dataclass
class Study:
    """The options of all commands."""

    raw: Path = EXAMPLES / "studies" / "fashion_mnist"  # folder of the raw logs

    @property
    def logs(self) -> Grid:
        return Grid(self.raw)

    @property
    def planned(self) -> dict[Run, bool]:
        """All runs, and whether they have a raw log; nobody with the logs of the repository repeats a run."""
        return {run: self.logs.log(run).exists() for run in protocol.planned(self.logs.best_pair)}


@dataclass
class Train(Study):
    """Run the remaining trainings and write their raw logs. The same command continues an interrupted study."""

    out: Path = Path("runs/study")  # folder of the runs
    data_root: Path = Path("data")  # folder of the data sets
    features: Path = Path("runs/classifiers/fashion-mnist.pt")  # network that examples/classifier.py trained
    jobs: int = 2  # number of runs at a time, with one thread each

    def do(self) -> int:
        """Run the grid that decides the best learning rates, then the runs that use these."""
        if not self.features.is_file():
            raise RefusedError(f"--features: there is no {self.features}; examples/classifier.py makes it")
        from sweeps import tuning

        recipe = Recipe(
            protocol.NAME,
            self.out.absolute(),
            EXAMPLES / f"{protocol.SCRIPT}.py",
            evaluate=f"--features={shlex.quote(str(self.features))} {protocol.EVALUATION}",
            jobs=self.jobs,
            gpus=0,
            options=(*protocol.OPTIONS.split(), f"--data-root={self.data_root}"),
        )
        ended = 0
        while not ended and (waiting := [run for run, done in self.planned.items() if not done]):
            print(f"{len(waiting)} to do, {self.jobs} at a time", flush=True)
            ended = tuning.do(recipe, waiting)
            for run in waiting:
                self.logs.export(run, recipe)
        for each in protocol.QUESTIONS["losses"]:
            run = Run(each, self.logs.best_pair(each) or protocol.PAIRS[0], protocol.SEEDS[0])
            samples = self.out / run.name / "samples" / f"iteration-{protocol.ITERATIONS:08d}.png"
            if self.logs.best_pair(each) and samples.exists():  # with raw logs of other people, there are none to copy
                self.logs.keep(run, samples)
        return ended


class List(Train):
    """List the planned runs and their progress; those with a raw log are done."""

    def do(self) -> int:
        statuses = {
            run: "done" if done else record(self.out / run.name)["status"] for run, done in self.planned.items()
        }
        for run, found in statuses.items():
            print(f"{found:11} {run.name}")
        print(counted(statuses.values()))
        return 0


@dataclass
class Report(Study):
    """Write all tables and pictures of the documentation, and the table in the README, from the raw logs alone."""

    root: Path = EXAMPLES.parent  # folder of README.md and docs/

    def do(self) -> int:
        """Write the report, unless raw logs are missing."""
        needed = [*map(self.logs.log, self.planned), self.raw / COSTS, self.raw / FLOOR]
        if missing := [path.name for path in needed if not path.exists()]:
            raise RefusedError(f"--raw: {len(missing)} files are missing in {self.raw}, such as {missing[0]}")
        found = {name: table(self.logs) for name, table in TABLES.items()}
        readme = self.root / "README.md"
        text, places = BLOCK.subn(lambda _: found["losses"], readme.read_text(encoding="utf-8"))
        if places != 1:
            raise RefusedError(f"{readme}: expected one place for the table of the study, got {places}")
        for name, table in found.items():
            write_text(self.root / "docs" / "_study" / f"{name}.md", table)
        write_text(readme, text)
        print(f"Tables: {self.root / 'docs' / '_study'}, and the table of losses in {readme}")
        pictures.save(pictures.PICTURES, self.logs, self.root / "docs" / "_static", "study")
        return 0


def main(arguments: Sequence[str] | None = None) -> int:
    commands: dict[str, Any] = {"run": Train, "list": List, "report": Report}
    try:
        return tyro.extras.subcommand_cli_from_dict(commands, description=__doc__, args=arguments).do()
    except (RefusedError, OSError) as error:
        print(f"study.py: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
