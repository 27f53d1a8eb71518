"""Raw logs, small files of JSON lines that go into the repository, and what they say of runs, pairs and seeds.

A log has a line `run` (settings, end, configuration), lines `training` (of the log) and lines `evaluation` (metrics of
a checkpoint, and the provenance of the last). Nothing here is of one study.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sweeps.runs import Group, Pair, Recipe, Run, record
from training.errors import RefusedError
from training.files import read_json, read_lines, write_lines

NEEDED: dict[str, dict[str, type]] = {
    "run": {"settings": dict, "status": str},
    "training": {"iteration": int},
    "evaluation": {"iteration": int, "metrics": dict},
}
"""The kinds of lines, and what each has at least."""
OF_RUN = ("study", "script", "settings", "options", "status", "message", "iteration")
"""What a raw log keeps of the record of a run."""
ORIGIN = ("checkpoint", "images", "extractor", "seed", "versions", "machine", "date", "command")
"""What a raw log keeps of the provenance of an evaluation."""


class Outcome(NamedTuple):
    """A run that has come to its end, with the lines of its log and its metrics by iteration."""

    run: Run
    diverged: bool
    training: Sequence[Mapping[str, Any]]
    evaluations: Mapping[int, Mapping[str, float]]

    @property
    def metrics(self) -> Mapping[str, float]:
        """The metrics at its end, none if it diverged."""
        return {} if self.diverged else self.evaluations[max(self.evaluations)]

    @property
    def fid(self) -> float:
        """The FID at its end, infinite if it diverged."""
        return self.metrics.get("fid", math.inf)

    def fid_at(self, iteration: float) -> float:
        """Return the FID of a finished run on the straight line between two evaluations."""
        known = sorted(self.evaluations)
        return float(np.interp(iteration, known, [self.evaluations[each]["fid"] for each in known]))


class Raw(NamedTuple):
    """A folder of raw logs: learning rates that are tried with the first seed, and seeds of the best of them."""

    path: Path
    pairs: Sequence[Pair]
    seeds: Sequence[int]

    def log(self, run: Run) -> Path:
        """Return where the log of a run is."""
        return self.path / f"{run.name}.jsonl"

    def sheet(self, run: Run) -> Path:
        """Return where the samples of a run are."""
        return self.path / "sheets" / f"{run.name}.png"

    def known(self, runs: Iterable[Run]) -> list[Outcome]:
        """Return those of some runs that have come to their end."""
        return [outcome(run, self.log(run)) for run in runs if self.log(run).exists()]

    def over_pairs(self, setting: Group) -> dict[Pair, Outcome]:
        """Return what is known of the first seed of a setting, by pair of learning rates."""
        return {each.run.pair: each for each in self.known(Run(setting, pair, self.seeds[0]) for pair in self.pairs)}

    def best_pair(self, setting: Group) -> Pair | None:
        """Return the pair with the lowest FID of the first seed; None if some are not known yet or all diverged."""
        fids = {pair: each.fid for pair, each in self.over_pairs(setting).items()}
        lowest = min(fids.values(), default=math.inf)
        return min(fids, key=lambda pair: fids[pair]) if len(fids) == len(self.pairs) and lowest < math.inf else None

    def over_seeds(self, setting: Group) -> list[Outcome]:
        """Return what is known of a setting at the pair that is best for its loss as it is."""
        pair = self.best_pair(setting[:1])
        return self.known(Run(setting, pair, seed) for seed in self.seeds) if pair else []

    def export(self, run: Run, recipe: Recipe) -> bool:
        """Write the log of a run that has ended, and was evaluated unless it diverged; return whether it was new."""
        folder, found = recipe.out / run.name, record(recipe.out / run.name)
        if self.log(run).exists() or found is None or not recipe.is_done(run):
            return False
        configuration = read_json(folder / "configuration.json")
        lines = [{"kind": "run", **{name: found[name] for name in OF_RUN}, "configuration": configuration}]
        log = read_lines(folder / "log.jsonl", growing=True, iteration=int)
        lines += [{"kind": "training", **rounded(line)} for line in log]
        for path in sorted((folder / "evaluations").glob("*.json")):
            result = read_json(path, metrics=dict, provenance=dict, class_shares=dict)
            origin, shares = result["provenance"], result["class_shares"]["measured"]
            at = {"kind": "evaluation", "iteration": origin["checkpoint"]["iteration"]}
            lines.append({**at, "metrics": result["metrics"], "class_shares": shares})
        if lines[-1]["kind"] == "evaluation":  # the provenance of all evaluations is equal, except for the checkpoint
            lines[-1]["provenance"] = {name: origin[name] for name in ORIGIN}
        write_lines(self.log(run), lines)
        return True


def outcome(run: Run, path: Path) -> Outcome:
    """Read the raw log of a run."""
    diverged, training, evaluations = read(path)
    return Outcome(run, diverged, training, {line["iteration"]: line["metrics"] for line in evaluations})


def read(path: Path) -> tuple[bool, list[dict[str, Any]], list[dict[str, Any]]]:
    """Return whether the run of a raw log diverged, and the lines of its training and of its evaluations."""
    found = {kind: list[dict[str, Any]]() for kind in NEEDED}
    for number, line in enumerate(read_lines(path, kind=str), 1):
        needed = NEEDED.get(line["kind"])
        if needed is None or not all(isinstance(line.get(name), kind) for name, kind in needed.items()):
            raise RefusedError(f"{path}, line {number}: expected the entries of a kind of lines, got {line}")
        found[line["kind"]].append(line)
    diverged = [line["status"] for line in found["run"]] == ["diverged"]
    if len(found["run"]) != 1 or not (diverged or found["evaluation"]):
        raise RefusedError(f"{path}: expected one run, with evaluations unless it diverged; lines are missing")
    return diverged, found["training"], found["evaluation"]


def rounded(value: Any) -> Any:  # noqa: ANN401
    """Return numbers with the six digits that float32 has."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value
