"""The runs of a sweep, the commands that do them, and the progress of each by the files in its folder; without Ray."""

from __future__ import annotations

import fcntl
import itertools
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import tyro
from training.errors import RefusedError
from training.files import Line, read_json, read_lines, write_text

EXAMPLES = Path(__file__).parents[1]

Value = str | int | float
Grid = Mapping[str, tuple[Value, ...]]
Group = tuple[tuple[str, str], ...]  # options of a training script with their values, except learning rates and seed
Pair = tuple[str, str]  # learning rates of D and of G
PAIR = ("lr-discriminator", "lr-generator")
Record = dict[str, Any]
"""The record of a run: `study`, `script`, `settings`, `options`, `status`, `message`, `iteration`, `evaluated`.

The status is `missing` until the run is `finished`, `diverged` or `failed`, or `stopped` by the scheduler.
"""

DIVERGED = re.compile(r"^Stopped at iteration ([\d,]+), where .*", re.MULTILINE)
"""The message of a training script that ends with status 1 since a number is not finite."""

RATES = (1e-4, 2e-4, 5e-4, 1e-3)  # learning rates of D and of G in Section 5.1 of Wang et al. (2019)
PAIRS = tuple(itertools.product(RATES, RATES))
TOTAL_SCALES = (16, 32, 64, 128, 256)  # C^K, which the authors give for K layers with the constant C
LOSSES: Grid = {"loss": ("non-saturating", "hinge", "mmd-rbf", "mmd-rq", "mmd-rbf-b", "mmd-rep", "mmd-rep-b")}
FOUR: Grid = {"loss": ("hinge", "mmd-rbf", "mmd-rep", "mmd-rep-b")}
LAMBDAS: Grid = {"loss": ("mmd-rep", "mmd-rep-b"), "lambda": (-1, -0.5, 0, 0.5, 1, 2)}
SCORES: Grid = {"loss": ("mmd-rep",), "total-scale": TOTAL_SCALES, "scores": (1, 4, 16, 64, 256)}
# With the norm of the reshaped matrix (PIM), the authors ran a single constant, which they do not give.
CONSTANTS = ({**FOUR, "normalisation": ("pico",), "total-scale": TOTAL_SCALES}, {**FOUR, "normalisation": ("matrix",)})


class Sweep(NamedTuple):
    """A sweep over all combinations of each grid. Its figure has the options `axis` along the horizontal axis."""

    meaning: str
    grids: tuple[Grid, ...]
    axis: tuple[str, ...]


SWEEPS: Mapping[str, Sweep] = {
    "table1": Sweep("the losses of Table 1", (LOSSES,), ("loss",)),
    "lambda": Sweep("lambda, with the kernels RBF and RBF-B (Figure 3)", (LAMBDAS,), ("lambda",)),
    "constant": Sweep("the constant C of the spectral normalisation", CONSTANTS, ("normalisation", "total-scale")),
    "scores": Sweep("the dimension of the scores", (SCORES,), ("scores",)),
}


class Run(NamedTuple):
    """One training, identified by the options that the sweep sets."""

    group: Group
    pair: Pair
    seed: int

    @property
    def settings(self) -> dict[str, str]:
        return {**dict(self.group), **dict(zip(PAIR, self.pair, strict=True)), "seed": str(self.seed)}

    @property
    def name(self) -> str:
        """The name of the folder, which depends on the settings only."""
        return ",".join(f"{option}={value}" for option, value in self.settings.items()).replace("/", "_")

    @classmethod
    def of(cls, settings: Mapping[str, str]) -> Run:
        group = tuple(item for item in settings.items() if item[0] not in (*PAIR, "seed"))
        return cls(group, (settings[PAIR[0]], settings[PAIR[1]]), int(settings["seed"]))


def text(value: Value) -> str:
    """Return one spelling of each number, or the word itself."""
    try:
        return str(float(value) or 0).removesuffix(".0")
    except ValueError:
        return str(value)


def plan(
    sweep: Sweep,
    vary: Mapping[str, Sequence[Value]],
    pairs: Iterable[tuple[Value, Value]] = PAIRS,
    seeds: Sequence[int] = (0,),
) -> list[Run]:
    """Return the runs of a sweep, seed after seed.

    The values of `vary` replace those of the sweep, or of further options; an option without values is left out.
    """
    rates, groups = [(text(d), text(g)) for d, g in pairs], list[Group]()
    for grid in sweep.grids:
        # Sorted, so that names do not depend on the order of the options.
        varied = {option: values for option, values in {**grid, **dict(sorted(vary.items()))}.items() if values}
        groups += (tuple(zip(varied, map(text, each), strict=True)) for each in itertools.product(*varied.values()))
    return list(dict.fromkeys(Run(group, pair, seed) for seed in seeds for group in groups for pair in rates))


@dataclass(frozen=True)
class Recipe:
    """How the runs are trained and evaluated."""

    study: str  # name of the sweep or of the study
    out: Path  # folder of the sweep
    script: Path = Path("dcgan_cifar10")  # training script: its name in examples/, or its path
    evaluate: str | None = None  # evaluate finished runs by evaluate.py with these options, given as one string
    rungs: tuple[int, ...] = ()
    """iterations after which the worse two thirds of the runs are stopped, each three times the previous one"""
    retry: bool = False  # train again the runs that diverged or were stopped
    jobs: int | None = None  # number of runs at a time; by default as many as there are cores and GPUs for
    cpus: float = 1.0  # cores of each run
    gpus: float | None = None  # GPUs of each run, such as 0.5; by default 1 if there are GPUs
    address: str | None = None  # address of a Ray cluster, or auto; by default one is started on this machine
    metric: Literal["fid", "kid_mean"] = "fid"  # metric that ranks runs; lower is better
    options: tyro.conf.Suppress[tuple[str, ...]] = ()  # of the training script, for all runs
    directory: tyro.conf.Suppress[Path] = field(default_factory=Path.cwd)  # working directory of the commands

    def training(self, run: Run, *more: str) -> list[str]:
        """Return the command that trains a run."""
        settings = [f"--{option}={value}" for option, value in run.settings.items()]
        return [sys.executable, str(self.script), *self.options, *settings, *more]

    def fresh(self, run: Run) -> Record:
        """Return the record of a run before its end."""
        trained = {"study": self.study, "script": self.script.stem, "settings": run.settings}
        return {**trained, "options": [*self.options], "status": "missing", "message": "", "iteration": 0}

    def known(self, run: Run) -> Record:
        """Return the record of a run, or an empty one if it has to be trained."""
        found, ended = record(self.out / run.name), ("finished", *("diverged", "stopped") * (not self.retry))
        # With changed options, the script decides whether it can continue.
        same = all(found.get(name) == self.fresh(run)[name] for name in ("script", "options", "settings"))
        return found if same and found["status"] in ended else {}

    def is_done(self, run: Run) -> bool:
        """Return whether a run has ended, and was evaluated if the recipe evaluates."""
        found = self.known(run)
        return bool(found) and (found["status"] != "finished" or self.evaluate in (None, found.get("evaluated")))


def record(folder: Path) -> Record:
    """Return the record of the run in a folder; if the run has not ended, with its progress by the other files."""
    found: Record = {"status": "missing"}
    if (path := folder / "run.json").exists():
        found = read_json(path, study=str, script=str, settings=dict, options=list, status=str, iteration=int)
        if not {*PAIR, "seed"} <= found["settings"].keys():
            raise RefusedError(f"{path}: expected settings with learning rates and a seed, got {found['settings']}")
    if found["status"] == "missing":
        found["status"] = "interrupted" if (folder / "console.log").exists() else "missing"
        found["iteration"] = reached(folder)
        with suppress(FileNotFoundError), (folder / "training.lock").open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared, since another sweep may look too
            except BlockingIOError:
                found["status"] = "running"
    return found


def write(folder: Path, found: Record) -> None:
    write_text(folder / "run.json", json.dumps(found, indent=2) + "\n")


def understood(fresh: Record, ended: int, output: str, iteration: int) -> Record:
    """Return the record of a training by its exit status and output; after a signal, the training can continue."""
    if ended in (129, 130, 143):  # SIGHUP, SIGINT or SIGTERM
        return {**fresh, "iteration": iteration}
    if not ended:
        return {**fresh, "status": "finished", "iteration": iteration}
    if ended == 1 and (found := DIVERGED.search(output)):
        return {**fresh, "status": "diverged", "message": found[0], "iteration": int(found[1].replace(",", ""))}
    return {**fresh, "status": "failed", "message": failure("training", ended, output), "iteration": iteration}


def failure(what: str, ended: int, output: str) -> str:
    """Return the message about a failure, with the last lines of the output."""
    return "\n    ".join([f"{what} failed with status {ended}:", *output.splitlines()[-10:]])


def reached(folder: Path) -> int:
    """Return the iteration of the last line of the log, which may be later than the last checkpoint."""
    return max((line["iteration"] for line in read_lines(folder / "log.jsonl", growing=True, iteration=int)), default=0)


def evaluations(folder: Path, pattern: str = "*.json") -> dict[int, Line]:
    """Return the evaluations of a run by iteration; of several at one iteration, the last name counts."""
    found = {}
    for path in sorted((folder / "evaluations").glob(pattern)):
        line = read_json(path, metrics=dict, provenance=dict)
        if "checkpoint" in line["provenance"]:  # which a floor has not
            found[line["provenance"]["checkpoint"]["iteration"]] = line | {"evaluation": path.name}
    return found
