"""The tables of the study of trainings without a discriminator, each made of the raw logs alone, however few."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from studies import one_step as plan
from studies import reference_cost
from studies.logs import read
from studies.one_step import SECONDS, Trial
from sweeps.tables import markdown, shown
from training.files import read_lines

FLOOR = "floor.jsonl"
"""What real images have in place of generated ones: a file among the raw logs."""
Line = Mapping[str, Any]


class Found(NamedTuple):
    """What is known of a run that has come to its end."""

    diverged: bool
    training: Sequence[Line]
    evaluations: Sequence[Line]

    @property
    def at_time(self) -> Line | None:
        """The evaluation at equal CPU time: the first that is not before it. None if the run diverged before."""
        late = [line for line in self.evaluations if line["cpu_seconds"] >= SECONDS and "kid_mean" in line["metrics"]]
        return min(late, key=lambda line: line["cpu_seconds"], default=None)

    @property
    def of_a_step(self) -> float:
        """The CPU milliseconds of a step up to that time."""
        return 1000 * self.at_time["cpu_seconds"] / self.at_time["iteration"] if self.at_time else float("nan")

    def fid_after(self, iterations: int) -> float | None:
        """Return the Frechet distance after some iterations, or None if it was not measured."""
        return next((line["metrics"]["fid"] for line in self.evaluations if line["iteration"] == iterations), None)


class Raw(NamedTuple):
    """A folder of raw logs."""

    path: Path

    def log(self, trial: Trial) -> Path:
        """Return where the log of a run is."""
        return self.path / f"{trial.name}.jsonl"

    def sheet(self, trial: Trial) -> Path:
        """Return where the samples of a run are."""
        return self.path / "sheets" / f"{trial.name}.png"

    def over_seeds(self, arm: str) -> list[Found]:
        """Return what is known of an arm."""
        paths = [self.log(Trial(arm, seed)) for seed in plan.SEEDS]
        return [Found(*read(path)) for path in paths if path.exists()]

    def floor(self) -> Line | None:
        """Return what real images have in place of generated ones, if it was measured."""
        return next(iter(read_lines(self.path / FLOOR, metrics=dict)), None)


Column = tuple[str, Callable[[Sequence[Line]], str]]
"""A heading, and what its cell says of evaluations at equal time."""


def of(name: str, digits: int | None = None, scale: float = 1.0, unit: str = "") -> Callable[[Sequence[Line]], str]:
    """Return what says mean and deviation of a metric."""

    def cell(lines: Sequence[Line]) -> str:
        values = [scale * line["metrics"][name] for line in lines if name in line["metrics"]]
        return shown(values, digits) + unit * bool(values)

    return cell


def classes(lines: Sequence[Line]) -> str:
    """Return how many of the classes are covered."""
    return shown([line["metrics"]["class_coverage"] * len(line["class_shares"]) for line in lines], 1)


FD = f"FD after {SECONDS:.0f} s"
MEASURES: Sequence[Column] = (
    (FD, of("fid")),
    ("KID", of("kid_mean", 4)),
    ("FD of the encoder", of("fid_of_encoder")),
    ("classes", classes),
    ("entropy", of("class_entropy", 3)),
)
AGREEMENT: Column = ("of the class asked for", of("agreement", 1, 100, " %"))


def table(
    raw: Raw,
    head: Sequence[str],
    arms: Mapping[str, Sequence[str]],
    *,
    columns: Sequence[Column] = MEASURES,
    after: Sequence[int] = (),
) -> str:
    """Return a table of arms.

    Args:
        raw: the raw logs.
        head: headings of what tells the arms apart.
        arms: the cells below them.
        columns: what is said of the evaluation at equal CPU time.
        after: iterations after which the Frechet distance is said too.
    """
    rows = []
    for arm, cells in arms.items():
        found = raw.over_seeds(arm)
        at_time = [each.at_time for each in found if each.at_time]
        steps = shown([each["iteration"] for each in at_time], 0)
        cost = shown([each.of_a_step for each in found if each.at_time], 0)
        at_steps = [numbers(each.fid_after(count) for each in found) for count in after]
        measured = [cell(at_time) for _, cell in columns]
        rows.append([*cells, steps, cost, *measured, *at_steps, seeds(found)])
    if floor := raw.floor():
        measured = [cell([floor]) for _, cell in columns]
        rows.append(["real images", *["-"] * (len(head) + 1), *measured, *["-"] * (len(after) + 1)])
    names = [f"FD after {count} steps" for count in after]
    return markdown([*head, "steps", "CPU ms a step", *(name for name, _ in columns), *names, "seeds"], rows)


def numbers(values: Iterable[float | None]) -> str:
    """Return mean and deviation of those that are known, and how many are if some are not."""
    listed = list(values)
    known = [each for each in listed if each is not None]
    return shown(known) + (f" ({len(known)} of {len(listed)})" if 0 < len(known) < len(listed) else "")


def seeds(found: Sequence[Found]) -> str:
    """Return how many seeds stand behind the numbers of an arm."""
    count, diverged = len(found), sum(each.diverged for each in found)
    known = f"{count}" if count == len(plan.SEEDS) else f"{count} of {len(plan.SEEDS)}"
    return known + (f", {diverged} diverged" if diverged else "")


REFERENCES: Mapping[str, str] = {
    "exact": "exact",
    "nystroem-1024": "Nyström, 1024",
    "nystroem-256": "Nyström, 256",
    "fourier": "Fourier, 4096",
    "resampled": "resampled, 256",
    "drift": "drift loss, 256",
}
"""The references and the losses by their names in tables."""
QUARTERS = ("exact", "nystroem-1024", "nystroem-256", "resampled")


def references(raw: Raw) -> str:
    """Return what stands for the data, at equal time and after equally many steps."""
    arms = {name: [label, "-" if name == "drift" else "median"] for name, label in REFERENCES.items()}
    arms |= {f"{name}-quarter": [REFERENCES[name], "median / 4"] for name in QUARTERS}
    return table(raw, ["reference", "sigma"], arms, after=plan.MEASURED[:2])


def batches(raw: Raw) -> str:
    """Return batches of different sizes."""
    arms = {64: "batch-64", 256: "nystroem-1024", 1024: "batch-1024", 4096: "batch-4096"}
    return table(raw, ["batch"], {arm: [f"{size}"] for size, arm in arms.items()}, after=plan.MEASURED[:2])


def choices(raw: Raw) -> str:
    """Return encoders, estimators and kernels."""
    arms = {
        "resampled": "one encoder, biased, Gaussian",
        "three-encoders": "three encoders",
        "unbiased": "unbiased",
        "laplace": "Laplace",
        "matern": "Matérn 3/2",
        "energy": "energy",
    }
    return table(raw, ["choice"], {arm: [name] for arm, name in arms.items()}, after=plan.MEASURED[1:3])


def adversaries(raw: Raw) -> str:
    """Return GANs beside the trainings without a discriminator."""
    arms = {
        "mmd-rep": ["repulsive MMD-GAN", "64"],
        "hinge": ["hinge GAN", "64"],
        "tuned": ["MMD, resampled, two encoders, four widths", "250"],
        "nystroem-1024": ["MMD, Nyström 1024", "256"],
        "batch-64": ["MMD, Nyström 1024", "64"],
        "resampled": ["MMD, resampled", "256"],
        "three-encoders": ["MMD, resampled, three encoders", "256"],
    }
    return table(raw, ["training", "batch"], arms)


def guidance(raw: Raw) -> str:
    """Return guidance by signed weights."""
    arms = {"nystroem-1024": ["no classes"], "classes": ["1"], "guidance-1.5": ["1.5"], "guidance-2": ["2"]}
    return table(raw, ["guidance"], arms, columns=(*MEASURES[:1], AGREEMENT, *MEASURES[1:]))


TABLES: Mapping[str, Callable[[Raw], str]] = {
    "references": references,
    "batches": batches,
    "choices": choices,
    "adversaries": adversaries,
    "guidance": guidance,
    "gpus": lambda _: reference_cost.table(),
}
