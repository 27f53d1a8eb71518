"""The runs of a sweep, the commands that do them, and the progress of each by the files in its folder; without Ray."""

from __future__ import annotations

import fcntl
import itertools
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import tyro
from training.errors import RefusedError
from training.files import read_json, read_lines, write_text

EXAMPLES = Path(__file__).parents[1]

Value = str | int | float
Grid = Mapping[str, tuple[Value, ...]]
Group = tuple[tuple[str, str], ...]  # options of a training script with their values, except learning rates and seed
Pair = tuple[str, str]  # learning rates of D and of G
PAIR = ("lr-discriminator", "lr-generator")
Status = Literal["missing", "interrupted", "running", "finished", "diverged", "stopped", "failed"]
"""The progress of a run. `stopped` is due to the scheduler. The record of a run has `missing` until the run ends."""
Record = dict[str, Any]
"""The record of a run: `study`, `script`, `settings`, `options`, `status`, `message`, `iteration`, `evaluated`."""

DIVERGED = re.compile(r"^Stopped at iteration ([\d,]+), where .*", re.MULTILINE)
"""The message of a training script that ends with status 1 since a number is not finite."""
INTERRUPTED = (129, 130, 143)  # exit statuses of a training after SIGHUP, SIGINT or SIGTERM

RATES = (1e-4, 2e-4, 5e-4, 1e-3)  # learning rates of D and of G in Section 5.1 of Wang et al. (2019), 16 pairs in all
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
        return ",".join(f"{option}={value}" for option, value in self.settings.items())

    @classmethod
    def of(cls, settings: Mapping[str, str]) -> Run:
        group = tuple(item for item in settings.items() if item[0] not in (*PAIR, "seed"))
        return cls(group, (settings[PAIR[0]], settings[PAIR[1]]), int(settings["seed"]))


def text(value: Value) -> str:
    """Return one spelling of each number; refuse words that the name of a folder cannot contain."""
    try:
        number = float(value)
    except ValueError:
        if not value or set(str(value)) & set("/\\,=") or str(value).startswith("-"):
            raise RefusedError(f"expected a number or a plain word, got {value!r}") from None
        return str(value)
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else str(number)


def plan(
    sweep: Sweep,
    vary: Mapping[str, Sequence[Value]],
    pairs: Sequence[tuple[Value, Value]] | Mapping[Group, Pair] = (),
    seeds: Sequence[int] = (0,),
) -> list[Run]:
    """Return the runs of a sweep, seed after seed.

    The values of `vary` replace those of the sweep, or of further options; an option without values is left out. The
    `pairs` are those of all settings, by default the paper's 16, or name one pair for each of the settings to run.
    """
    runs: dict[Run, None] = {}
    for seed, grid in itertools.product(seeds, sweep.grids):
        # Sorted, so that names do not depend on the order of the options.
        varied = {option: values for option, values in {**grid, **dict(sorted(vary.items()))}.items() if values}
        for values in itertools.product(*varied.values()):
            group = tuple((option, text(value)) for option, value in zip(varied, values, strict=True))
            if isinstance(pairs, Mapping):
                chosen = [pairs[group]] if group in pairs else []
            else:
                chosen = [(text(d), text(g)) for d, g in pairs or itertools.product(RATES, repeat=2)]
            runs.update(dict.fromkeys(Run(group, pair, seed) for pair in chosen))
    return list(runs)


@dataclass(frozen=True)
class Recipe:
    """How the runs are trained and evaluated."""

    study: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar=f"{{{','.join(SWEEPS)}}}")]  # the sweep
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

    @property
    def evaluator(self) -> Path:
        """The script that evaluates, in the folder of the script that trains."""
        return self.script.with_name("evaluate.py")

    def training(self, run: Run, *more: str) -> list[str]:
        """Return the command that trains a run."""
        settings = [f"--{option}={value}" for option, value in run.settings.items()]
        return [sys.executable, str(self.script), *self.options, *settings, *more]

    def fresh(self, run: Run) -> Record:
        """Return the record of a run before its end."""
        trained = {"study": self.study, "script": self.script.stem, "settings": run.settings}
        return {**trained, "options": [*self.options], "status": "missing", "message": "", "iteration": 0}

    def known(self, run: Run) -> Record | None:
        """Return the record of a run, or None if it has to be trained."""
        found, again = record(self.out / run.name), ("missing", "failed", *("diverged", "stopped") * self.retry)
        if found is None or found["status"] in again:
            return None
        # With changed options, the script decides whether it can continue.
        return found if (found["script"], found["options"]) == (self.script.stem, [*self.options]) else None

    def is_done(self, run: Run) -> bool:
        """Return whether a run has ended, and was evaluated if the recipe evaluates."""
        found = self.known(run)
        return found is not None and (found["status"] != "finished" or self.evaluate in (None, found.get("evaluated")))


def record(folder: Path) -> Record | None:
    path = folder / "run.json"
    if not path.exists():
        return None
    found = read_json(path, study=str, script=str, settings=dict, options=list, status=str, iteration=int)
    if not {*PAIR, "seed"} <= set(found["settings"]):
        raise RefusedError(f"{path}: expected settings with learning rates and a seed, got {found['settings']}")
    return found


def write(folder: Path, found: Record) -> None:
    write_text(folder / "run.json", json.dumps(found, indent=2) + "\n")


def status(folder: Path) -> Status:
    """Return the status of the run in a folder, which is running while a training holds its lock."""
    lock = folder / "training.lock"
    if lock.exists():
        with lock.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared, since another sweep may look too
            except BlockingIOError:
                return "running"
    known = (record(folder) or {}).get("status", "missing")
    return "interrupted" if known == "missing" and (folder / "console.log").exists() else known


def understood(fresh: Record, ended: int, output: str, iteration: int) -> Record:
    """Return the record of a training by its exit status and output; after a signal, the training can continue."""
    if ended in INTERRUPTED:
        return {**fresh, "iteration": iteration}
    if not ended:
        return {**fresh, "status": "finished", "iteration": iteration}
    if ended == 1 and (found := DIVERGED.search(output)):
        return {**fresh, "status": "diverged", "message": found[0], "iteration": int(found[1].replace(",", ""))}
    return {**fresh, "status": "failed", "message": failure("training", ended, output), "iteration": iteration}


def failure(what: str, ended: int, output: str) -> str:
    """Return the message about a failure, with the last lines of the output."""
    return "\n    ".join([f"{what} failed with status {ended}:", *output.splitlines()[-10:]])


def last_line(folder: Path) -> dict[str, Any]:
    """Return the last line of the log, which may be later than the last checkpoint."""
    return [{"iteration": 0}, *read_lines(folder / "log.jsonl", growing=True, iteration=int)][-1]


def evaluation(folder: Path, iteration: int, pattern: str = "*.json") -> tuple[str, dict[str, float]]:
    """Return name and finite metrics of the evaluation of an iteration, the last name if there are several."""
    for path in sorted((folder / "evaluations").glob(pattern), reverse=True):
        found = read_json(path, metrics=dict, provenance=dict)
        if found["provenance"].get("checkpoint", {}).get("iteration", iteration) == iteration:
            return path.name, finite(found["metrics"])
    return "", {}


def finite(numbers: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in numbers.items() if isinstance(value, int | float) and math.isfinite(value)}
