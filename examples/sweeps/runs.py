"""Which runs a sweep has, how they are done, and how far each is by what lies in its folder; nothing here needs Ray."""

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
from typing import Any, Literal, NamedTuple

import tyro
from training.errors import RefusedError
from training.files import read_json, read_lines, write_text

EXAMPLES = Path(__file__).parents[1]

Value = str | int | float
Grid = Mapping[str, tuple[Value, ...]]
Group = tuple[tuple[str, str], ...]
"""Options of a training script with their values, without learning rates and seed."""
Pair = tuple[str, str]
"""Learning rates of D and of G."""
PAIR = ("lr-discriminator", "lr-generator")
Status = Literal["missing", "interrupted", "running", "finished", "diverged", "stopped", "failed"]
"""How far a run is; `stopped` by the scheduler, which had seen better ones. Records have `missing` before the end."""
Record = dict[str, Any]
"""What is noted of a run: `study`, `script`, `settings`, `options`, `status`, `message`, `iteration`, `evaluated`."""

DIVERGED = re.compile(r"^Stopped at iteration ([\d,]+), where .*", re.MULTILINE)
"""How a training script says that a number is not finite any more, and ends with status 1."""
INTERRUPTED = (129, 130, 143)
"""Exit statuses of a training that SIGHUP, SIGINT or SIGTERM has stopped, after it has saved."""

RATES = (1e-4, 2e-4, 5e-4, 1e-3)
"""Of D and of G in Section 5.1 of Wang et al. (2019), 16 pairs in all."""
TOTAL_SCALES = (16, 32, 64, 128, 256)
"""C^K as the authors count the constant C of all K layers."""
LOSSES: Grid = {"loss": ("non-saturating", "hinge", "mmd-rbf", "mmd-rq", "mmd-rbf-b", "mmd-rep", "mmd-rep-b")}
FOUR: Grid = {"loss": ("hinge", "mmd-rbf", "mmd-rep", "mmd-rep-b")}
LAMBDAS: Grid = {"loss": ("mmd-rep", "mmd-rep-b"), "lambda": (-1, -0.5, 0, 0.5, 1, 2)}
SCORES: Grid = {"loss": ("mmd-rep",), "total-scale": TOTAL_SCALES, "scores": (1, 4, 16, 64, 256)}
# With the norm of the reshaped matrix (PIM) the authors ran one constant, and do not say which.
CONSTANTS = ({**FOUR, "normalisation": ("pico",), "total-scale": TOTAL_SCALES}, {**FOUR, "normalisation": ("matrix",)})


class Sweep(NamedTuple):
    """What a sweep varies besides the learning rates: all combinations of each grid, drawn along an axis."""

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
    """One training, told by the values of all options that the sweep decides."""

    group: Group
    pair: Pair
    seed: int

    @property
    def settings(self) -> dict[str, str]:
        """The values by option."""
        return {**dict(self.group), **dict(zip(PAIR, self.pair, strict=True)), "seed": str(self.seed)}

    @property
    def name(self) -> str:
        """The name of its folder, the same in every sweep with these settings."""
        return ",".join(f"{option}={value}" for option, value in self.settings.items())

    @classmethod
    def of(cls, settings: Mapping[str, str]) -> Run:
        """Return the run of some settings."""
        group = tuple(item for item in settings.items() if item[0] not in (*PAIR, "seed"))
        return cls(group, (settings[PAIR[0]], settings[PAIR[1]]), int(settings["seed"]))


def text(value: Value) -> str:
    """Return the same text for all ways to write a number; a word that cannot be in the name of a folder is refused."""
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

    Args:
        sweep: what to run.
        vary: values in place of those of the sweep, or of more options; an option without any is left out.
        pairs: learning rates for all settings (the paper's 16 if there are none), or by setting; others are left out.
        seeds: seeds that everything is run with.
    """
    runs: dict[Run, None] = {}
    for seed, grid in itertools.product(seeds, sweep.grids):
        # Sorted, so that names do not depend on the order in which somebody thought of the options.
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
    """How and where the runs of a sweep are done, and from which records nothing is left to do."""

    study: tyro.conf.Positional[str]  # what is varied: table1, lambda, constant or scores
    out: Path  # folder of the sweep
    script: Path = EXAMPLES / "dcgan_cifar10.py"  # training script; a name without .py is one of examples/
    evaluate: str | None = None  # evaluate finished runs with these options, one string
    rungs: tuple[int, ...] = ()
    """Evaluate runs after these iterations too, each three times the one before, and stop the worse two thirds."""
    retry: bool = False  # train again what diverged or was stopped
    jobs: int | None = None  # runs side by side; by default as many as there are cores and GPUs for
    cpus: float = 1.0  # cores of each run
    gpus: float | None = None  # GPUs of each run, may be a part of one; by default one if there are any
    address: str | None = None  # of a Ray cluster, or auto; by default, this machine is one
    metric: Literal["fid", "kid_mean"] = "fid"  # what is best; lower is better
    options: tyro.conf.Suppress[tuple[str, ...]] = ()  # of the training script, the same for all runs
    directory: tyro.conf.Suppress[Path] = field(default_factory=Path.cwd)  # where the commands run

    @property
    def evaluator(self) -> Path:
        """The script that evaluates, beside the one that trains."""
        return self.script.with_name("evaluate.py")

    def training(self, run: Run, *more: str) -> list[str]:
        """Return the command that trains."""
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
        # With other options than before, the script knows whether it can go on.
        return found if (found["script"], found["options"]) == (self.script.stem, [*self.options]) else None

    def is_done(self, run: Run) -> bool:
        """Return whether a run has come to its end, and was evaluated if that is asked for."""
        found = self.known(run)
        return found is not None and (found["status"] != "finished" or self.evaluate in (None, found.get("evaluated")))


def record(folder: Path) -> Record | None:
    """Return the record of the run in a folder, or None if there is none yet."""
    path = folder / "run.json"
    if not path.exists():
        return None
    found = read_json(path, study=str, script=str, settings=dict, options=list, status=str, iteration=int)
    if not {*PAIR, "seed"} <= set(found["settings"]):
        raise RefusedError(f"{path}: expected settings with learning rates and a seed, got {found['settings']}")
    return found


def write(folder: Path, found: Record) -> None:
    """Write the record of the run in a folder."""
    write_text(folder / "run.json", json.dumps(found, indent=2) + "\n")


def status(folder: Path) -> Status:
    """Return how far the run in a folder is; it is running while a training holds its lock."""
    lock = folder / "training.lock"
    if lock.exists():
        with lock.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared, so that two who look do not see each other
            except BlockingIOError:
                return "running"
    known = (record(folder) or {}).get("status", "missing")
    return "interrupted" if known == "missing" and (folder / "console.log").exists() else known


def understood(fresh: Record, ended: int, output: str, iteration: int) -> Record:
    """Return the record of a training by its exit status and its words; after a signal, it can go on."""
    if ended in INTERRUPTED:
        return fresh
    if not ended:
        return {**fresh, "status": "finished", "iteration": iteration}
    if ended == 1 and (found := DIVERGED.search(output)):
        return {**fresh, "status": "diverged", "message": found[0], "iteration": int(found[1].replace(",", ""))}
    return {**fresh, "status": "failed", "message": failure("training", ended, output), "iteration": iteration}


def failure(what: str, ended: int, output: str) -> str:
    """Say how something failed, with the last lines of its output."""
    return "\n    ".join([f"{what} failed with status {ended}:", *output.splitlines()[-10:]])


def last_line(folder: Path) -> dict[str, Any]:
    """Return the last line of the log, which may be a little farther than the last checkpoint."""
    return [{"iteration": 0}, *read_lines(folder / "log.jsonl", growing=True, iteration=int)][-1]


def evaluation(folder: Path, iteration: int, pattern: str = "*.json") -> tuple[str, dict[str, float]]:
    """Return name and finite metrics of the evaluation of an iteration, the last by name if there are several."""
    for path in sorted((folder / "evaluations").glob(pattern), reverse=True):
        found = read_json(path, metrics=dict, provenance=dict)
        if found["provenance"].get("checkpoint", {}).get("iteration", iteration) == iteration:
            return path.name, finite(found["metrics"])
    return "", {}


def finite(numbers: Mapping[str, Any]) -> dict[str, float]:
    """Return the entries that are finite numbers."""
    return {name: value for name, value in numbers.items() if isinstance(value, int | float) and math.isfinite(value)}
