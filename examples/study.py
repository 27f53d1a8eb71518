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
from sweeps.runs import EXAMPLES, Pair, Recipe, Run, status
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
        return Grid(self.raw, protocol.PAIRS, protocol.SEEDS)

    @property
    def best(self) -> dict[str, Pair]:
        """The best pairs of the losses whose grids are complete."""
        found = {each[0][1]: self.logs.best_pair(each) for each in protocol.QUESTIONS["losses"].settings}
        return {loss: pair for loss, pair in found.items() if pair}

    @property
    def waiting(self) -> list[Run]:
        """The planned runs without a raw log, so that nobody with the logs of the repository repeats a run."""
        return [run for run in protocol.planned(self.best) if not self.logs.log(run).exists()]


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
            evaluate=shlex.join([f"--features={self.features}", *protocol.EVALUATION]),
            jobs=self.jobs,
            gpus=0,
            options=(*protocol.OPTIONS, f"--data-root={self.data_root}"),
        )
        ended, grid = 0, protocol.QUESTIONS["losses"].runs({})
        for stage in ("grid of the losses", "all"):
            waiting = [run for run in self.waiting if run in grid or stage == "all"]
            print(f"{stage}: {len(waiting)} to do, {self.jobs} at a time", flush=True)
            ended = ended or tuning.do(recipe, waiting)
            for run in self.waiting:
                if self.logs.export(run, recipe):
                    print(f"exported {run.name}", flush=True)
        for loss, pair in self.best.items():
            run = Run(protocol.setting(loss), pair, protocol.SEEDS[0])
            samples = self.out / run.name / "samples" / f"iteration-{protocol.ITERATIONS:08d}.png"
            # With raw logs of other people, there are no samples to copy.
            if samples.exists() and not self.logs.sheet(run).exists():
                self.logs.keep(run, samples)
        return ended


@dataclass
class List(Study):
    """List the planned runs and their progress."""

    out: Path = Path("runs/study")  # folder of the runs

    def do(self) -> int:
        runs = protocol.planned(self.best)
        known = self.logs.known(runs)
        ended = {run: "diverged" if outcome.diverged else "finished" for run, outcome in known.items()}
        statuses = {run: ended.get(run) or status(self.out / run.name) for run in runs}
        for run, found in statuses.items():
            print(f"{found:11} {run.name}")
        print(counted(statuses.values()))
        return 0


@dataclass
class Report(Study):
    """Write all tables and pictures of the documentation, and the table in the README, from the raw logs alone."""

    root: Path = EXAMPLES.parent  # folder of README.md and docs/
    partial: bool = False  # write the report even if raw logs are missing

    def do(self) -> int:
        """Write the report, unless raw logs are missing without --partial."""
        readme = self.root / "README.md"
        if not any(self.raw.glob("loss=*.jsonl")):
            raise RefusedError(f"--raw: there are no raw logs of runs in {self.raw}")
        if not readme.is_file():
            raise RefusedError(f"--root: there is no README.md in {self.root}")
        needed = [*map(self.logs.log, self.waiting), self.raw / COSTS, self.raw / FLOOR]
        missing = [path.name for path in needed if not path.exists()]
        if missing and not self.partial:
            names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            advice = "--partial writes the report without them"
            raise RefusedError(f"--raw: {len(missing)} files are missing in {self.raw}: {names}; {advice}")
        found = {name: table(self.logs) for name, table in TABLES.items()}
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
