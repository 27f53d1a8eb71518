"""The tables of the study of trainings without a discriminator, from its raw logs; logs may be missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from studies import one_step as plan
from studies import reference_cost
from studies.logs import Raw
from studies.one_step import SECONDS, Trial
from sweeps.tables import Result, markdown, seeds, shown
from training.files import Line, read_lines

FLOOR = "floor.jsonl"
"""The measures of real images in place of generated ones: a file among the raw logs."""


def over_seeds(raw: Raw, arm: str) -> list[Result]:
    """Return the results of an arm."""
    return raw.known(Trial(arm, seed) for seed in plan.SEEDS)


def at_time(found: Result) -> Line | None:
    """Return the first complete evaluation after the common CPU time, or None if the run diverged before."""
    lines = found.evaluations.values()
    late = [line for line in lines if line["cpu_seconds"] >= SECONDS and "kid_mean" in line["metrics"]]
    return min(late, key=lambda line: line["cpu_seconds"], default=None)


Cell = Callable[[Sequence[Line]], str]
"""Returns the text of a cell for evaluations of several seeds."""
Column = tuple[str, Cell]
"""A heading and its cells."""


def mean_of(name: str, digits: int | None = None, scale: float = 1.0, unit: str = "") -> Cell:
    """Return the function that shows mean and deviation of a metric."""

    def cell(lines: Sequence[Line]) -> str:
        values = [scale * line["metrics"][name] for line in lines if name in line["metrics"]]
        return shown(values, digits, unit)

    return cell


def classes(lines: Sequence[Line]) -> str:
    """Return the cell with the number of covered classes."""
    return shown([line["metrics"]["class_coverage"] * len(line["class_shares"]) for line in lines], 1)


FD = f"FD after {SECONDS:.0f} s"
MEASURES: Sequence[Column] = (
    (FD, mean_of("fid")),
    ("KID", mean_of("kid_mean", 4)),
    ("FD of the encoder", mean_of("fid_of_encoder")),
    ("classes", classes),
    ("entropy", mean_of("class_entropy", 3)),
)
AGREEMENT: Column = ("of the class asked for", mean_of("agreement", 1, 100, " %"))


def table(
    raw: Raw,
    *,
    head: Sequence[str],
    arms: Mapping[str, Sequence[str]],
    columns: Sequence[Column] = MEASURES,
    after: Sequence[int] = (),
) -> str:
    """Return a table of arms, with a line for real images if they were measured.

    Args:
        raw: the raw logs.
        head: headings of the columns that name the arms.
        arms: the cells of these columns.
        columns: columns about the evaluation at equal CPU time.
        after: numbers of iterations after which the Frechet distance is added.
    """
    rows = []
    for arm, cells in arms.items():
        found = over_seeds(raw, arm)
        lines = [line for line in map(at_time, found) if line]
        steps = shown([line["iteration"] for line in lines], 0)
        cost = shown([1000 * line["cpu_seconds"] / line["iteration"] for line in lines], 0)
        at_steps = [distances(each.evaluations.get(count) for each in found) for count in after]
        rows.append(
            [*cells, steps, cost, *(cell(lines) for _, cell in columns), *at_steps, seeds(found, len(plan.SEEDS))]
        )
    for floor in read_lines(raw.path / FLOOR, metrics=dict):
        measured = [cell([floor]) for _, cell in columns]
        rows.append(["real images", *["-"] * (len(head) + 1), *measured, *["-"] * (len(after) + 1)])
    names = [f"FD after {count} steps" for count in after]
    return markdown([*head, "steps", "CPU ms a step", *(name for name, _ in columns), *names, "seeds"], rows)


def distances(lines: Iterable[Line | None]) -> str:
    """Return mean and deviation of the known Frechet distances, and the number of these if some are unknown."""
    listed = list(lines)
    known = [line["metrics"]["fid"] for line in listed if line]
    return shown(known) + (f" ({len(known)} of {len(listed)})" if 0 < len(known) < len(listed) else "")


REFERENCES: Mapping[str, str] = {
    "exact": "exact",
    "nystroem-1024": "Nyström, 1024",
    "nystroem-256": "Nyström, 256",
    "fourier": "Fourier, 4096",
    "resampled": "resampled, 256",
    "drift": "drift loss, 256",
}
"""Labels of the references and losses in tables."""
QUARTERS = ("exact", "nystroem-1024", "nystroem-256", "resampled")


TABLES: Mapping[str, Callable[[Raw], str]] = {
    "references": partial(
        table,
        head=["reference", "sigma"],
        arms={name: [label, "-" if name == "drift" else "median"] for name, label in REFERENCES.items()}
        | {f"{name}-quarter": [REFERENCES[name], "median / 4"] for name in QUARTERS},
        after=plan.MEASURED[:2],
    ),
    "batches": partial(
        table,
        head=["batch"],
        arms={"batch-64": ["64"], "nystroem-1024": ["256"], "batch-1024": ["1024"], "batch-4096": ["4096"]},
        after=plan.MEASURED[:2],
    ),
    "choices": partial(
        table,
        head=["choice"],
        arms={
            "resampled": ["one encoder, biased, Gaussian"],
            "three-encoders": ["three encoders"],
            "unbiased": ["unbiased"],
            "laplace": ["Laplace"],
            "matern": ["Matérn 3/2"],
            "energy": ["energy"],
        },
        after=plan.MEASURED[1:3],
    ),
    "adversaries": partial(
        table,
        head=["training", "batch"],
        arms={
            "mmd-rep": ["repulsive MMD-GAN", "64"],
            "hinge": ["hinge GAN", "64"],
            "tuned": ["MMD, resampled, two encoders, four widths", "250"],
            "nystroem-1024": ["MMD, Nyström 1024", "256"],
            "batch-64": ["MMD, Nyström 1024", "64"],
            "resampled": ["MMD, resampled", "256"],
            "three-encoders": ["MMD, resampled, three encoders", "256"],
        },
    ),
    "guidance": partial(
        table,
        head=["guidance"],
        arms={"nystroem-1024": ["no classes"], "classes": ["1"], "guidance-1.5": ["1.5"], "guidance-2": ["2"]},
        columns=(*MEASURES[:1], AGREEMENT, *MEASURES[1:]),
    ),
    "gpus": lambda _: reference_cost.table(),
}
