"""Raw logs: small files of JSON lines that the repository keeps of each run.

A log has one line `run` (settings, end, configuration), lines `training` (those of the training's log) and lines
`evaluation` (metrics of a checkpoint).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from studies import protocol
from studies.one_step import Trial
from sweeps.runs import Group, Pair, Recipe, Run, evaluations, record
from sweeps.tables import Result, best
from training.errors import RefusedError
from training.files import Line, read_json, read_lines, replacing, write_lines

NEEDED = {"run": {"settings", "status"}, "training": {"iteration"}, "evaluation": {"iteration", "metrics"}}
"""The kinds of lines, with the entries that each must have."""


@dataclass(frozen=True)
class Raw:
    """A folder of raw logs and of sheets of samples."""

    path: Path

    def log(self, run: Run | Trial) -> Path:
        return self.path / f"{run.name}.jsonl"

    def sheet(self, run: Run | Trial) -> Path:
        return self.path / "sheets" / f"{run.name}.png"

    def known(self, runs: Iterable[Run | Trial]) -> list[Result]:
        """Return the results of the runs that have a log."""
        return [read(self.log(run)) for run in runs if self.log(run).exists()]

    def write(self, run: Run | Trial, about: Line, folder: Path, evaluated: Iterable[Line]) -> None:
        """Write the log of a run with the folder of its training."""
        about = {**about, "configuration": read_json(folder / "configuration.json")}
        training = read_lines(folder / "log.jsonl", growing=True, iteration=int)
        of_kind = {"run": [about], "training": map(rounded, training), "evaluation": evaluated}
        write_lines(self.log(run), [portable({"kind": kind, **line}) for kind, of in of_kind.items() for line in of])

    def keep(self, run: Run | Trial, samples: Path) -> None:
        """Copy a sheet of samples."""
        with replacing(self.sheet(run)) as partial:
            partial.write_bytes(samples.read_bytes())


class Grid(Raw):
    """The raw logs of the study of losses, whose settings have all pairs of learning rates with the first seed."""

    def over_pairs(self, setting: Group) -> list[Result]:
        """Return the results of the first seed, pair after pair."""
        return self.known(Run(setting, pair, protocol.SEEDS[0]) for pair in protocol.PAIRS)

    def best_pair(self, setting: Group) -> Pair | None:
        """Return the pair with the lowest FID of the first seed; None if a log is missing or all runs diverged."""
        found = self.over_pairs(setting)
        return best(found, "fid") if len(found) == len(protocol.PAIRS) else None

    def over_seeds(self, setting: Group) -> list[Result]:
        """Return the results of a setting at the pair that is best for its loss without other options."""
        pair = self.best_pair(setting[:1])
        return self.known(Run(setting, pair, seed) for seed in protocol.SEEDS) if pair else []

    def export(self, run: Run, recipe: Recipe) -> None:
        """Write the log of a run, unless it has to be trained or evaluated first."""
        folder = recipe.out / run.name
        if recipe.is_done(run):
            found = evaluations(folder)
            for at, line in found.items():
                line |= {"iteration": at, "class_shares": line["class_shares"]["measured"]}
                if at < max(found):  # the provenance of all evaluations is equal, except for the checkpoint
                    del line["provenance"]
            self.write(run, record(folder), folder, found.values())


def read(path: Path) -> Result:
    of_kind: dict[str, list[Line]] = {kind: [] for kind in NEEDED}
    for number, line in enumerate(read_lines(path, kind=str), 1):
        if not NEEDED.get(line["kind"], {"a known kind"}) <= line.keys():
            raise RefusedError(f"{path}, line {number}: expected the entries of a kind of lines, got {line}")
        of_kind[line["kind"]].append(line)
    about, training, evaluated = of_kind.values()
    known = {line["iteration"]: line for line in evaluated}
    ended = [line["status"] == "diverged" or line.get("iteration", max(known, default=0)) in known for line in about]
    if ended != [True]:
        raise RefusedError(f"{path}: expected one run, and an evaluation at its end unless it diverged")
    return Result(about[0], known, training)


def portable(line: Line) -> Line:
    """Return a line with paths relative to the current folder."""
    return dict(json.loads(json.dumps(line).replace(json.dumps(f"{Path.cwd()}/")[1:-1], "")))


def rounded(line: Line) -> Line:
    """Return a line with numbers of six digits, about those of float32."""
    return dict(json.loads(json.dumps(line), parse_float=lambda number: float(f"{float(number):.6g}")))
