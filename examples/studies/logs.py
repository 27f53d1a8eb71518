"""Raw logs: small files of JSON lines that the repository keeps of each run.

A log has one line `run` (settings, end, configuration), lines `training` (those of the training's log) and lines
`evaluation` (metrics of a checkpoint).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from studies.one_step import Trial
from sweeps.runs import Group, Pair, Recipe, Run, record
from training.errors import RefusedError
from training.files import read_json, read_lines, replacing, write_lines

Line = Mapping[str, Any]

NEEDED: dict[str, dict[str, type]] = {
    "run": {"settings": dict, "status": str},
    "training": {"iteration": int},
    "evaluation": {"iteration": int, "metrics": dict},
}
"""The kinds of lines, with the entries that each must have."""
OF_RUN = ("study", "script", "settings", "options", "status", "message", "iteration")
"""Entries of a run's record that its raw log keeps."""
ORIGIN = ("checkpoint", "images", "extractor", "seed", "versions", "machine", "date", "command")
"""Entries of an evaluation's provenance that a raw log keeps."""


class Outcome(NamedTuple):
    """A run that has ended: the lines of its training, and the lines of its evaluations by iteration."""

    diverged: bool
    training: Sequence[Line]
    evaluations: Mapping[int, Line]

    @property
    def metrics(self) -> Mapping[str, float]:
        """The metrics at the end, empty if the run diverged."""
        return {} if self.diverged else self.evaluations[max(self.evaluations)]["metrics"]

    @property
    def fid(self) -> float:
        """The FID at the end, infinite if the run diverged."""
        return self.metrics.get("fid", math.inf)

    def fid_at(self, iteration: float) -> float:
        """Return the FID of a finished run, interpolated linearly between two evaluations."""
        known = sorted(self.evaluations)
        return float(np.interp(iteration, known, [self.evaluations[each]["metrics"]["fid"] for each in known]))


def read(path: Path) -> Outcome:
    found = {kind: list[Line]() for kind in NEEDED}
    for number, line in enumerate(read_lines(path, kind=str), 1):
        needed = NEEDED.get(line["kind"])
        if needed is None or not all(isinstance(line.get(name), kind) for name, kind in needed.items()):
            raise RefusedError(f"{path}, line {number}: expected the entries of a kind of lines, got {line}")
        found[line["kind"]].append(line)
    diverged = [line["status"] for line in found["run"]] == ["diverged"]
    if len(found["run"]) != 1 or not (diverged or found["evaluation"]):
        raise RefusedError(f"{path}: expected one run, with evaluations unless it diverged; lines are missing")
    return Outcome(diverged, found["training"], {line["iteration"]: line for line in found["evaluation"]})


R = TypeVar("R", Run, Trial)


@dataclass(frozen=True)
class Raw:
    """A folder of raw logs and of sheets of samples."""

    path: Path

    def log(self, run: Run | Trial) -> Path:
        return self.path / f"{run.name}.jsonl"

    def sheet(self, run: Run | Trial) -> Path:
        return self.path / "sheets" / f"{run.name}.png"

    def known(self, runs: Iterable[R]) -> dict[R, Outcome]:
        """Return the outcomes of the runs that have a log."""
        return {run: read(self.log(run)) for run in runs if self.log(run).exists()}

    def write(self, run: Run | Trial, about: Line, folder: Path, evaluations: Iterable[Line]) -> None:
        """Write the log of a run with the folder of its training."""
        about = {**about, "configuration": read_json(folder / "configuration.json")}
        training = read_lines(folder / "log.jsonl", growing=True, iteration=int)
        of_kind = {"run": [about], "training": map(rounded, training), "evaluation": evaluations}
        lines = [{"kind": kind, **line} for kind, of in of_kind.items() for line in of]
        write_lines(self.log(run), [portable(line) for line in lines])

    def keep(self, run: Run | Trial, samples: Path) -> None:
        """Copy a sheet of samples."""
        with replacing(self.sheet(run)) as partial:
            partial.write_bytes(samples.read_bytes())


@dataclass(frozen=True)
class Grid(Raw):
    """Raw logs of settings that have all pairs of learning rates with the first seed, and the best pair with all."""

    pairs: Sequence[Pair]
    seeds: Sequence[int]

    def over_pairs(self, setting: Group) -> dict[Pair, Outcome]:
        """Return the outcomes of the first seed by pair of learning rates."""
        found = self.known(Run(setting, pair, self.seeds[0]) for pair in self.pairs)
        return {run.pair: outcome for run, outcome in found.items()}

    def best_pair(self, setting: Group) -> Pair | None:
        """Return the pair with the lowest FID of the first seed; None if a log is missing or all runs diverged."""
        fids = {pair: outcome.fid for pair, outcome in self.over_pairs(setting).items()}
        lowest = min(fids.values(), default=math.inf)
        return min(fids, key=lambda pair: fids[pair]) if len(fids) == len(self.pairs) and lowest < math.inf else None

    def over_seeds(self, setting: Group) -> list[Outcome]:
        """Return the outcomes of a setting at the pair that is best for its loss without other options."""
        pair = self.best_pair(setting[:1])
        return list(self.known(Run(setting, pair, seed) for seed in self.seeds).values()) if pair else []

    def export(self, run: Run, recipe: Recipe) -> bool:
        """Write the log of a run that diverged, or finished and was evaluated; return whether the log is new."""
        folder, found = recipe.out / run.name, record(recipe.out / run.name)
        if self.log(run).exists() or found is None or not recipe.is_done(run):
            return False
        evaluations: list[dict[str, Any]] = []
        for path in sorted((folder / "evaluations").glob("*.json")):
            result = read_json(path, metrics=dict, provenance=dict, class_shares=dict)
            origin, shares = result["provenance"], result["class_shares"]["measured"]
            at = origin["checkpoint"]["iteration"]
            evaluations.append({"iteration": at, "metrics": result["metrics"], "class_shares": shares})
        if evaluations:  # the provenance of all evaluations is equal, except for the checkpoint
            evaluations[-1]["provenance"] = {name: origin[name] for name in ORIGIN}
        self.write(run, {name: found[name] for name in OF_RUN}, folder, evaluations)
        return True


def seeds(found: Sequence[Outcome], planned: Sequence[int]) -> str:
    """Return the cell of a table with the number of seeds, of missing ones and of diverged ones."""
    diverged = sum(each.diverged for each in found)
    known = f"{len(found)}" if len(found) == len(planned) else f"{len(found)} of {len(planned)}"
    return known + (f", {diverged} diverged" if diverged else "")


def portable(line: Line) -> dict[str, Any]:
    """Return a line of a raw log with paths relative to the current folder."""
    here = json.dumps(f"{Path.cwd()}/")[1:-1]
    found: dict[str, Any] = json.loads(json.dumps(line).replace(here, ""))
    return found


def rounded(value: Any) -> Any:  # noqa: ANN401
    """Return numbers rounded to six digits, about the precision of float32."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value
