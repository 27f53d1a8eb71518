"""Run the study on Fashion-MNIST, keep its raw logs, and report what they say."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before tyro, so that all packages that are missing are named at once
    import training  # noqa: F401

import tyro
from studies import pictures, protocol
from studies.logs import Raw
from studies.tables import COSTS, FLOOR, TABLES
from sweeps.runs import EXAMPLES, Pair, Recipe, Run, status
from sweeps.tables import counted
from training.errors import RefusedError
from training.files import replacing, write_text

BLOCK = re.compile(r"(?<=<!-- table of the study -->\n\n).*?(?=\n<!-- its end -->)", re.DOTALL)
"""Where the table of losses stands in the README."""


@dataclass
class Study:
    """What all commands need."""

    raw: Path = EXAMPLES / "studies" / "fashion_mnist"
    """Folder of the raw logs."""

    @property
    def logs(self) -> Raw:
        """The raw logs."""
        return Raw(self.raw, protocol.PAIRS, protocol.SEEDS)

    @property
    def best(self) -> dict[str, Pair]:
        """The best pair of each loss in the table of losses, as far as they are known."""
        found = {each[0][1]: self.logs.best_pair(each) for each in protocol.QUESTIONS["losses"].settings}
        return {loss: pair for loss, pair in found.items() if pair}

    @property
    def waiting(self) -> list[Run]:
        """The runs without a raw log, as far as they are decided: whoever has the repository repeats none of them."""
        return [run for run in protocol.planned(self.best) if not self.logs.log(run).exists()]


@dataclass
class Train(Study):
    """Do what is not done yet, and write its raw logs; may be stopped at any moment and given again."""

    out: Path = Path("runs/study")
    """Folder of the runs."""
    data_root: Path = Path("data")
    """Folder of the data sets."""
    features: Path = Path("runs/classifiers/fashion-mnist.pt")
    """Network that examples/classifier.py made."""
    jobs: int = 2
    """Runs side by side, of one thread each."""

    def do(self) -> int:
        """Bring all runs to their end: first what decides the best learning rates, then what needs them."""
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
            source = self.out / run.name / "samples" / f"iteration-{protocol.ITERATIONS:08d}.png"
            # Whoever has only the raw logs of others has no samples to copy.
            if source.exists() and not self.logs.sheet(run).exists():
                with replacing(self.logs.sheet(run)) as partial:
                    partial.write_bytes(source.read_bytes())
        return ended


@dataclass
class List(Study):
    """List the runs that are decided, and how far they are."""

    out: Path = Path("runs/study")
    """Folder of the runs."""

    def do(self) -> int:
        """Print a line for each."""
        runs = protocol.planned(self.best)
        known = {each.run: "diverged" if each.diverged else "finished" for each in self.logs.known(runs)}
        statuses = {run: known.get(run) or status(self.out / run.name) for run in runs}
        for run, found in statuses.items():
            print(f"{found:11} {run.name}")
        print(counted(statuses.values()))
        return 0


@dataclass
class Report(Study):
    """Make all tables and pictures of the documentation of the raw logs alone."""

    root: Path = EXAMPLES.parent
    """Where README.md and docs are."""
    partial: bool = False
    """Report on what there is if raw logs are missing."""

    def do(self) -> int:
        """Write them, unless raw logs are missing and the user does not know that."""
        readme = self.root / "README.md"
        if not any(self.raw.glob("loss=*.jsonl")):
            raise RefusedError(f"--raw: there are no raw logs of runs in {self.raw}")
        if not readme.is_file():
            raise RefusedError(f"--root: there is no README.md in {self.root}")
        needed = [*map(self.logs.log, self.waiting), self.raw / COSTS, self.raw / FLOOR]
        missing = [path.name for path in needed if not path.exists()]
        if missing and not self.partial:
            names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            raise RefusedError(
                f"--raw: {len(missing)} files are missing in {self.raw}: {names}; --partial goes without"
            )
        found = {name: table(self.logs) for name, table in TABLES.items()}
        text, places = BLOCK.subn(lambda _: found["losses"], readme.read_text(encoding="utf-8"))
        if places != 1:
            raise RefusedError(f"{readme}: expected one place for the table of the study, got {places}")
        for name, table in found.items():
            write_text(self.root / "docs" / "_study" / f"{name}.md", table)
        write_text(readme, text)
        try:
            pictures.save(pictures.PICTURES, self.logs, self.root / "docs" / "_static", "study")
        except ModuleNotFoundError as error:
            raise RefusedError(
                f"the tables are written, but the pictures need matplotlib and Pillow: {error}"
            ) from error
        print(f"Tables and pictures are written below {self.root / 'docs'}, and the table of losses into {readme}")
        return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says, and return the exit status."""
    commands: dict[str, Any] = {"run": Train, "list": List, "report": Report}
    try:
        return tyro.extras.subcommand_cli_from_dict(commands, description=__doc__, args=arguments).do()
    except (RefusedError, OSError) as error:
        print(f"study.py: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
