"""Run the study of trainings without a discriminator, and write the tables and pictures of its report."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # before tyro, so that all missing packages are named at once
    import training  # noqa: F401

import tyro
from filelock import FileLock, Timeout
from studies import one_step as plan
from studies import one_step_pictures, pictures
from studies.logs import Raw, portable
from studies.one_step import Trial
from studies.one_step_tables import FLOOR, TABLES
from training import checkpoints
from training.errors import RefusedError, StoppedError
from training.files import read_lines, write_lines, write_text

if TYPE_CHECKING:
    from studies.measures import Judge

EXAMPLES = Path(__file__).parent
SIGNAL = 128
"""Exit statuses above this one are of trainings that a signal ended."""


@dataclass
class Study:
    """The options of all commands."""

    raw: Path = EXAMPLES / "studies" / "one_step"  # folder of the raw logs

    @property
    def logs(self) -> Raw:
        """The raw logs."""
        return Raw(self.raw)

    @property
    def waiting(self) -> list[Trial]:
        """The planned runs without a raw log, in their order."""
        return [trial for trial in plan.planned() if not self.logs.log(trial).exists()]


@dataclass
class Train(Study):
    """Run the remaining trainings one after the other, and write their raw logs.

    The same command continues an interrupted study. Several commands may run at the same time: each takes runs that no
    other command is running.
    """

    out: Path = Path("runs/study-one-step")  # folder of the runs
    data_root: Path = Path("data")  # folder of the data sets
    unseen: Path = Path("runs/classifiers/unseen.pt")
    """classifier that measures the samples, trained by examples/classifier.py and not used in any loss"""
    arms: tuple[str, ...] = ()  # settings to run; by default all
    seeds: tuple[int, ...] = ()  # seeds to run, by default 0 1 2; other seeds need another --raw and --out
    seconds: float | None = None  # CPU seconds of each run; by default those of the study

    def do(self) -> int:
        """Run the trainings; return 1 if some failed or are running elsewhere."""
        import torch
        from studies.measures import Judge

        if unknown := set(self.arms) - set(plan.ARMS):
            raise RefusedError(f"--arms: expected some of {', '.join(plan.ARMS)}, got {', '.join(sorted(unknown))}")
        if not self.unseen.is_file():
            raise RefusedError(f"--unseen: there is no {self.unseen}; examples/classifier.py makes it")
        torch.set_num_threads(1)
        judge = Judge(self.unseen, plan.ENCODER, images=plan.IMAGES, data_root=self.data_root)
        with FileLock(self.locked(FLOOR)):
            if not (self.raw / FLOOR).exists():
                found = judge.floor(plan.PRESET) | {"provenance": judge.provenance}
                write_lines(self.raw / FLOOR, [portable(found)])
        runs = [Trial(arm, seed) for seed in self.seeds or plan.SEEDS for arm in self.arms or plan.ARMS]
        left = 0
        for number, trial in enumerate(runs, 1):
            try:
                with FileLock(self.locked(trial.name), timeout=0):
                    if not self.logs.log(trial).exists():
                        print(f"{trial.name}, {number} of {len(runs)}", flush=True)
                        self.complete(trial, judge)
            except Timeout:
                left += 1
            except (Exception, SystemExit) as error:  # of any kind, so that the other runs go on
                if isinstance(error, SystemExit) and int(error.code or 0) > SIGNAL:
                    raise
                traceback.print_exc()
                print(f"{trial.name} failed: {error}", file=sys.stderr, flush=True)
                left += 1
        return int(left > 0)

    def locked(self, name: str) -> Path:
        """Return the path of a lock in the folder of the runs."""
        folder = self.out / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.lock"

    def complete(self, trial: Trial, judge: Judge) -> None:
        """Train and measure a run from its last checkpoint on, and write its raw log."""
        folder, status, message = self.out / trial.name, "finished", ""
        for seconds in (self.seconds,) if self.seconds else plan.ARMS[trial.arm].seconds:
            if any(line["cpu_seconds"] >= seconds for line in measured(folder)):
                continue
            try:
                train(trial, plan.words(trial, seconds, out=folder, data_root=self.data_root))
            except StoppedError as error:
                status, message = "diverged", str(error)
                break
            # A training that continues deletes this checkpoint, so it is measured first.
            self.measure(folder, checkpoints.newest_first(folder / "checkpoints")[0], judge, whole=True)
        for path in checkpoints.newest_first(folder / "checkpoints"):
            if checkpoints.iteration_of(path) in plan.MEASURED:
                self.measure(folder, path, judge, whole=False)
        about = {"arm": trial.arm, "seed": trial.seed, "status": status, "message": message}
        about |= {"settings": plan.options(trial), **judge.provenance}
        self.logs.write(trial, about, folder, measured(folder))
        if trial.seed == plan.SEEDS[0]:
            for path in sorted((folder / "samples").glob("*.png"))[-1:]:
                self.logs.keep(trial, path)

    def measure(self, folder: Path, path: Path, judge: Judge, *, whole: bool) -> None:
        """Measure a checkpoint unless its measures exist."""
        to = folder / "measured" / f"{path.stem}.jsonl"
        if not to.exists():
            write_lines(to, [judge.checkpoint(path, whole=whole)])


@dataclass
class List(Study):
    """List the planned runs, and which of them have a raw log."""

    def do(self) -> int:
        """Print a line for each run."""
        waiting = self.waiting
        for trial in plan.planned():
            print(f"{'missing' if trial in waiting else 'done':8} {trial.name}")
        print(f"{len(plan.planned()) - len(waiting)} done, {len(waiting)} missing")
        return 0


@dataclass
class Report(Study):
    """Write all tables and pictures of the documentation from the raw logs alone; some of them may be missing."""

    root: Path = EXAMPLES.parent  # folder of docs/

    def do(self) -> int:
        """Write the report."""
        if not any(self.raw.glob("*,seed=*.jsonl")):
            raise RefusedError(f"--raw: there are no raw logs of runs in {self.raw}")
        found = {name: table(self.logs) for name, table in TABLES.items()}
        for name, table in found.items():
            write_text(self.root / "docs" / "_study_one_step" / f"{name}.md", table)
        runs = len(plan.planned())
        print(f"Tables of {runs - len(self.waiting)} of {runs} runs: {self.root / 'docs' / '_study_one_step'}")
        pictures.save(one_step_pictures.PICTURES, self.logs, self.root / "docs" / "_static", "one-step-study")
        return 0


def train(trial: Trial, words: list[str]) -> None:
    """Train in this process, which saves the time of imports.

    Raises:
        StoppedError: if a number is not finite.
        SystemExit: if a signal ended the training, or the script refused it.
    """
    try:
        import_module(f"{plan.ARMS[trial.arm].script}.train").main(words)
    except SystemExit as error:
        if isinstance(error.__context__, StoppedError):
            raise error.__context__ from None
        raise


def measured(folder: Path) -> list[dict[str, Any]]:
    """Return the measures of the checkpoints of a run, in their order."""
    paths = sorted((folder / "measured").glob("*.jsonl"))
    return [line for path in paths for line in read_lines(path, iteration=int, cpu_seconds=float, metrics=dict)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command in the arguments, and return the exit status."""
    commands: dict[str, Any] = {"run": Train, "list": List, "report": Report}
    try:
        return tyro.extras.subcommand_cli_from_dict(commands, description=__doc__, args=arguments).do()
    except (RefusedError, OSError) as error:
        print(f"study_one_step.py: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
