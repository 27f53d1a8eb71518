"""The folder of a run: what the sweep notes there beside what the training leaves, and how far the run is by both."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from dcgan.atomic import write_text
from dcgan.locks import is_locked
from dcgan.reading import DamagedFileError, read_json
from dcgan.record import read_log

Description = dict[str, Any]
"""What decides how a run ends: study, script, settings and options."""

DESCRIPTION = "run.json"
OUTCOME = "outcome.json"
CONFIGURATION = "configuration.json"
"""What a training script writes first."""


class Status(str, Enum):
    """How far a run is."""

    MISSING = "missing"
    """It has not begun."""
    INTERRUPTED = "interrupted"
    """It can go on."""
    RUNNING = "running"
    FINISHED = "finished"
    DIVERGED = "diverged"
    FAILED = "failed"
    """The script could not do it; the reason is in its console log."""


@dataclass(frozen=True)
class Outcome:
    """How a training ended."""

    status: Status
    message: str = ""
    """What the script said last, unless it finished."""
    iteration: int | None = None
    """Where it ended."""
    evaluated: str | None = None
    """The options of its last evaluation, if it was evaluated."""


class Evaluation(NamedTuple):
    """What was measured of a run."""

    name: str
    """Of the file, which says how it was measured."""
    metrics: dict[str, float]
    """The finite numbers."""


class Folder:
    """The folder of a run in a sweep.

    Args:
        path: where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = path / "run.lock"
        self.console = path / "console.log"
        self.evaluation_console = path / "evaluation.log"

    def describe(self, description: Description) -> None:
        """Write down what is trained here."""
        self._write(DESCRIPTION, description)

    def description(self) -> Description | None:
        """Return what was written down last, or None."""
        return self._read(DESCRIPTION, study=str, script=str, settings=dict, options=list)

    def begin(self, description: Description) -> None:
        """Write down what is trained from now on, and drop how that ended before."""
        (self.path / OUTCOME).unlink(missing_ok=True)
        self.describe(description)

    def save(self, outcome: Outcome) -> None:
        """Keep how the training ended."""
        self._write(OUTCOME, dataclasses.asdict(outcome))

    def outcome(self) -> Outcome | None:
        """Return how the training ended, or None if it did not.

        A training that outlived its sweep has ended if it left a checkpoint of its last iteration.
        """
        saved = self._read(OUTCOME, status=str)
        if saved is None:
            return self._left()
        try:
            return Outcome(**{**saved, "status": Status(saved["status"])})
        except (TypeError, ValueError) as error:
            raise DamagedFileError(f"{self.path / OUTCOME}: expected how a run ended, got {saved}: {error}") from error

    def keep(self) -> None:
        """Write down how the training ended if only what it left tells: its checkpoints may be deleted one day."""
        left = self._left()
        if left is not None and not (self.path / OUTCOME).exists():
            self.save(left)

    def _left(self) -> Outcome | None:
        description, configuration = self.path / DESCRIPTION, self.path / CONFIGURATION
        if not configuration.exists():
            return None
        if description.exists() and configuration.stat().st_mtime_ns < description.stat().st_mtime_ns:
            return None  # that of a shorter training: the new one was killed before it wrote its own
        last = (self._read(CONFIGURATION) or {}).get("iterations")
        return Outcome(Status.FINISHED, iteration=last) if last in self._checkpoints() else None

    def status(self) -> Status:
        """Return how far the run is."""
        if is_locked(self.lock):
            return Status.RUNNING
        outcome = self.outcome()
        if outcome is not None:
            return outcome.status
        return Status.INTERRUPTED if self.console.exists() else Status.MISSING

    def iteration(self) -> int:
        """Return how far the training is by its log, which may be a little farther than its last checkpoint."""
        lines = read_log(self.path / "log.jsonl")
        return int(lines[-1]["iteration"]) if lines else 0

    def evaluation(self, iteration: int, pattern: str = "*.json") -> Evaluation | None:
        """Return an evaluation of the state after an iteration, or None if there is none.

        Of several whose files' names match the pattern, it is the one whose name is last by its letters.
        """
        for path in sorted((self.path / "evaluations").glob(pattern), reverse=True):
            content = read_json(path, metrics=dict, provenance=dict)
            of = content["provenance"].get("checkpoint", {}).get("iteration", iteration)
            if of == iteration:
                return Evaluation(path.name, _finite_numbers(content["metrics"]))
        return None

    def _checkpoints(self) -> list[int]:
        names = (path.name for path in (self.path / "checkpoints").glob("*"))
        return [int(found[1]) for name in names if (found := re.fullmatch(r"iteration-(\d+)\.pt", name))]

    def _read(self, name: str, **needed: type) -> dict[str, Any] | None:
        path = self.path / name
        return read_json(path, **needed) if path.exists() else None

    def _write(self, name: str, content: dict[str, Any]) -> None:
        write_text(self.path / name, json.dumps(content, indent=2) + "\n")


def _finite_numbers(metrics: dict[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
