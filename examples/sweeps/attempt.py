"""One run, from whatever there is of it to its end: train, understand how that ended, evaluate."""

from __future__ import annotations

import dataclasses
import re
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from dcgan.locks import locked

from sweeps.devices import Place
from sweeps.folders import Folder, Outcome, Status
from sweeps.plan import Run
from sweeps.processes import Ended, Processes

DIVERGED = re.compile(r"^Stopped at iteration ([\d,]+), where .*", re.MULTILINE)
"""How a training script says that a number is not finite any more, and ends with status 1."""

REFUSED = 2
"""The exit status of a script that changed nothing, since it cannot do what it was asked to."""

TAIL = 10
"""Lines of output that are shown of what failed."""


class Result(Enum):
    """What came of an attempt."""

    DONE = "done"
    """There is nothing more to do: the run is finished, and evaluated if that was asked for, or it diverged."""
    FAILED = "failed"
    BUSY = "busy"
    """Another process has the run."""


@dataclass(frozen=True)
class Recipe:
    """How the runs of a sweep are done.

    Args:
        study: name of the study.
        out: folder of the sweep.
        script: command of the training script.
        options: options of it that are the same for all runs.
        evaluator: command that evaluates the run whose folder comes next.
        evaluation: options of it, as on a command line; None does not evaluate.
        retry: try runs again that diverged.
    """

    study: str
    out: Path
    script: Sequence[str]
    options: Sequence[str]
    evaluator: Sequence[str] = ()
    evaluation: str | None = None
    retry: bool = False

    def folder(self, run: Run) -> Folder:
        """Return the folder of a run."""
        return Folder(self.out / run.name)

    def description(self, run: Run) -> dict[str, object]:
        """Return what decides how a run ends."""
        script = Path(self.script[-1]).stem
        return {"study": self.study, "script": script, "settings": run.settings, "options": list(self.options)}

    def training(self, run: Run, place: Place) -> list[str]:
        """Return the command of a training."""
        out = [f"--out={self.out / run.name}", "--resume=auto"]
        return [*self.script, *self.options, *run.options, *place.options, *out]


@dataclass(frozen=True)
class Attempt:
    """A run that is to be brought to its end.

    Args:
        recipe: how runs are done.
        run: which run it is.
        place: where to train.
        processes: starts the training.
        say: is told what happens.
    """

    recipe: Recipe
    run: Run
    place: Place
    processes: Processes
    say: Callable[[str], None]

    def __call__(self) -> Result:
        """Do what is left to do.

        Raises:
            StoppedError: if the sweep is ending; the run can go on later.
        """
        folder = self.recipe.folder(self.run)
        with locked(folder.lock) as lock:
            if lock is None:
                return Result.BUSY
            outcome = self._known(folder) or self._train(folder, lock)
            if outcome.status is Status.FAILED:
                return Result.FAILED
            evaluated = self.recipe.evaluation in (None, outcome.evaluated) or outcome.status is Status.DIVERGED
            return Result.DONE if evaluated or self._evaluate(folder, outcome, lock) else Result.FAILED

    def _known(self, folder: Folder) -> Outcome | None:
        """Return how the run ended before, or None if it has to be trained."""
        if folder.description() != self.recipe.description(self.run):
            return None  # the script knows whether it can go on with these options
        folder.keep()
        outcome = folder.outcome()
        again = (Status.FAILED, Status.DIVERGED) if self.recipe.retry else (Status.FAILED,)
        return None if outcome is None or outcome.status in again else outcome

    def _train(self, folder: Folder, lock: int) -> Outcome:
        description, known = folder.description(), folder.outcome()
        folder.begin(self.recipe.description(self.run))
        self.say(f"started on {self.place.name}")
        start = time.monotonic()
        command = self.recipe.training(self.run, self.place)
        ended = self.processes.run(command, folder.console, self.place.environment, lock)
        outcome = understood(ended, folder.iteration())
        if ended.status == REFUSED and description is not None and known is not None:
            # A slip in the options is no reason to forget what is done.
            folder.describe(description)
            folder.save(known)
        else:
            folder.save(outcome)
        if outcome.status is Status.FAILED:
            self.say(_failure("training", ended, folder.console))
        else:
            self.say(f"{outcome.status.value} at iteration {outcome.iteration:,}, {time.monotonic() - start:.0f} s")
        return outcome

    def _evaluate(self, folder: Folder, outcome: Outcome, lock: int) -> bool:
        evaluation = self.recipe.evaluation or ""
        command = [*self.recipe.evaluator, str(folder.path), "--overwrite", *shlex.split(evaluation)]
        start = time.monotonic()
        ended = self.processes.run(command, folder.evaluation_console, self.place.environment, lock)
        if ended.status:
            self.say(_failure("evaluation", ended, folder.evaluation_console))
        else:
            folder.save(dataclasses.replace(outcome, evaluated=evaluation))
            self.say(f"evaluated, {time.monotonic() - start:.0f} s")
        return not ended.status


def understood(ended: Ended, iteration: int) -> Outcome:
    """Return how a training ended, by its exit status and its words.

    Args:
        ended: the process of the training.
        iteration: the last that was logged.
    """
    if not ended.status:
        return Outcome(Status.FINISHED, iteration=iteration)
    diverged = DIVERGED.search(ended.output)
    if ended.status == 1 and diverged:
        return Outcome(Status.DIVERGED, diverged[0], int(diverged[1].replace(",", "")))
    return Outcome(Status.FAILED, "\n".join(_tail(ended)), iteration)


def _failure(what: str, ended: Ended, console: Path) -> str:
    how = f"with status {ended.status}" if ended.status > 0 else f"by signal {-ended.status}"
    return "\n    ".join([f"{what} failed {how}; the end of {console}:", *_tail(ended)])


def _tail(ended: Ended) -> list[str]:
    return ended.output.splitlines()[-TAIL:]
