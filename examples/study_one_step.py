"""Run the study of trainings without a discriminator, keep its raw logs, and report what they say."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before tyro, so that all packages that are missing are named at once
    import training  # noqa: F401

import tyro
from filelock import FileLock, Timeout
from studies import one_step as plan
from studies import one_step_pictures, one_step_tables, pictures
from studies.logs import rounded
from studies.one_step import Trial
from studies.one_step_tables import FLOOR, Raw
from training import checkpoints
from training.errors import RefusedError, StoppedError
from training.files import read_json, read_lines, replacing, write_lines, write_text

EXAMPLES = Path(__file__).parent
SIGNAL = 128
"""Above it are the exit statuses of trainings that a signal has stopped."""


@dataclass
class Study:
    """What all commands need."""

    raw: Path = EXAMPLES / "studies" / "one_step"
    """Folder of the raw logs."""

    @property
    def logs(self) -> Raw:
        """The raw logs."""
        return Raw(self.raw)

    @property
    def waiting(self) -> list[Trial]:
        """The runs without a raw log, in their order."""
        return [trial for trial in plan.planned() if not self.logs.log(trial).exists()]


@dataclass
class Train(Study):
    """Do what is not done yet, one run after the other; may be stopped at any moment and given again.

    Several may run at the same time: each takes runs that no other has.
    """

    out: Path = Path("runs/study-one-step")
    """Folder of the runs."""
    data_root: Path = Path("data")
    """Folder of the data sets."""
    unseen: Path = Path("runs/classifiers/unseen.pt")
    """Network that examples/classifier.py made, and that no loss has seen."""
    arms: tuple[str, ...] = ()
    """By default all."""
    seeds: tuple[int, ...] = ()
    """By default those of the plan; others are for a pilot, with another --raw and --out."""
    seconds: float | None = None
    """CPU seconds of each run of a pilot; by default those of the plan."""

    def do(self) -> int:
        """Bring the runs to their end, and write the raw log of each; return 1 if some failed or others have them."""
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
                found = judge.floor(plan.PRESET) | {"provenance": judge.provenance | circumstances()}
                write_lines(self.raw / FLOOR, [portable(rounded(found))])
        runs = [Trial(arm, seed) for seed in self.seeds or plan.SEEDS for arm in self.arms or plan.ARMS]
        left = 0
        for number, trial in enumerate(runs, 1):
            try:
                with FileLock(self.locked(trial.name), timeout=0):
                    if not self.logs.log(trial).exists():
                        print(f"{trial.name}, {number} of {len(runs)}", flush=True)
                        self.bring_to_its_end(trial, judge)
            except Timeout:
                left += 1
            except (Exception, SystemExit) as error:  # of any kind: the other runs need not wait for a person
                if isinstance(error, SystemExit) and int(error.code or 0) > SIGNAL:
                    raise
                traceback.print_exc()
                print(f"{trial.name} failed: {error}", file=sys.stderr, flush=True)
                left += 1
        return int(left > 0)

    def locked(self, name: str) -> Path:
        """Return the file that whoever does something holds."""
        folder = self.out / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.lock"

    def bring_to_its_end(self, trial: Trial, judge: Any) -> None:  # noqa: ANN401
        """Train and measure a run, from where it is, and write its raw log."""
        folder, status, message = self.out / trial.name, "finished", ""
        for seconds in (self.seconds,) if self.seconds else plan.ARMS[trial.arm].seconds:
            if any(line["cpu_seconds"] >= seconds for line in measured(folder)):
                continue
            try:
                train(trial, plan.words(trial, seconds, out=folder, data_root=self.data_root))
            except StoppedError as error:
                status, message = "diverged", str(error)
                break
            # Before the training goes on, and does not keep this checkpoint.
            self.measure(folder, checkpoints.newest_first(folder / "checkpoints")[0], judge, whole=True)
        for path in checkpoints.newest_first(folder / "checkpoints"):
            if checkpoints.iteration_of(path) in plan.MEASURED:
                self.measure(folder, path, judge, whole=False)
        about = {"arm": trial.arm, "seed": trial.seed, "status": status, "message": message}
        origin = {"configuration": read_json(folder / "configuration.json"), **judge.provenance, **circumstances()}
        lines = [{"kind": "run", **about, "settings": plan.options(trial), **origin}]
        lines += [{"kind": "training", **line} for line in read_lines(folder / "log.jsonl", growing=True)]
        lines += [{"kind": "evaluation", **line} for line in measured(folder)]
        write_lines(self.logs.log(trial), [portable(rounded(line)) for line in lines])
        if trial.seed == plan.SEEDS[0]:
            for path in sorted((folder / "samples").glob("*.png"))[-1:]:
                with replacing(self.logs.sheet(trial)) as partial:
                    partial.write_bytes(path.read_bytes())

    def measure(self, folder: Path, path: Path, judge: Any, *, whole: bool) -> None:  # noqa: ANN401
        """Write the measures of a checkpoint, unless they are there."""
        to = folder / "measured" / f"{path.stem}.jsonl"
        if not to.exists():
            write_lines(to, [judge.checkpoint(path, whole=whole)])


@dataclass
class List(Study):
    """List the runs, and which are done."""

    def do(self) -> int:
        """Print a line for each."""
        waiting = self.waiting
        for trial in plan.planned():
            print(f"{'missing' if trial in waiting else 'done':8} {trial.name}")
        print(f"{len(plan.planned()) - len(waiting)} done, {len(waiting)} missing")
        return 0


@dataclass
class Report(Study):
    """Make all tables and pictures of the documentation of the raw logs alone, however many there are."""

    root: Path = EXAMPLES.parent
    """Where docs is."""

    def do(self) -> int:
        """Write them."""
        if not any(self.raw.glob("*,seed=*.jsonl")):
            raise RefusedError(f"--raw: there are no raw logs of runs in {self.raw}")
        found = {name: table(self.logs) for name, table in one_step_tables.TABLES.items()}
        for name, table in found.items():
            write_text(self.root / "docs" / "_study_one_step" / f"{name}.md", table)
        try:
            pictures.save(
                one_step_pictures.PICTURES, self.logs, self.root / "docs" / "_static", one_step_pictures.PREFIX
            )
        except ModuleNotFoundError as error:
            raise RefusedError(
                f"the tables are written, but the pictures need matplotlib and Pillow: {error}"
            ) from error
        print(f"Tables and pictures of {len(plan.planned()) - len(self.waiting)} runs are written below {self.root}")
        return 0


def train(trial: Trial, words: list[str]) -> None:
    """Train in this process, which saves the time of the imports.

    Raises:
        StoppedError: if a number is not finite any more.
        SystemExit: if a signal has ended the training, or it was refused.
    """
    try:
        import_module(f"{plan.ARMS[trial.arm].script}.train").main(words)
    except SystemExit as error:
        if isinstance(error.__context__, StoppedError):
            raise error.__context__ from None
        raise


def measured(folder: Path) -> list[dict[str, Any]]:
    """Return what is known of the checkpoints of a run, in their order."""
    paths = sorted((folder / "measured").glob("*.jsonl"))
    return [line for path in paths for line in read_lines(path, iteration=int, cpu_seconds=float, metrics=dict)]


def portable(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line of a raw log with paths relative to the current folder, which says nothing to other people."""
    here = json.dumps(f"{Path.cwd()}/")[1:-1]
    found: dict[str, Any] = json.loads(json.dumps(line).replace(here, ""))
    return found


def circumstances() -> dict[str, Any]:
    """Return the versions, the machine, the date and the command."""
    from evaluation import provenance

    return provenance.circumstances("examples/study_one_step.py")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says, and return the exit status."""
    commands: dict[str, Any] = {"run": Train, "list": List, "report": Report}
    try:
        return tyro.extras.subcommand_cli_from_dict(commands, description=__doc__, args=arguments).do()
    except (RefusedError, OSError) as error:
        print(f"study_one_step.py: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
