"""The tables of the study on Fashion-MNIST, from its raw logs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from studies import protocol
from studies.logs import Grid
from studies.protocol import NORMS, QUESTIONS, SCALES, SCORES, SEEDS, normed, setting
from sweeps.runs import Group
from sweeps.tables import Result, markdown, seeds, shown
from training.files import Line, read_json, read_lines

COSTS, FLOOR = "costs.jsonl", "floor.json"
"""The cost of an iteration of each setting, and the result of `evaluate.py --floor`: files among the raw logs."""
MEASURED = ("FID", "KID", "classes covered", "seeds")
MEANS = ("k_rr", "k_rf", "k_ff")
LOGGED = (1, 100, 400, 2000)  # iterations in the table of mean kernel values
ERRORS = 2  # standard errors by which a difference has to exceed zero


def measured(found: Sequence[Result]) -> list[str]:
    """Return the cells `MEASURED` of the results of a setting, with covered classes in per cent."""
    known = [each.metrics for each in found if each.metrics]
    covered = shown((100 * each["class_coverage"] for each in known), 0, " %")
    means = [shown(each[name] for each in known) for name in ("fid", "kid_mean")]
    return [*means, covered, seeds(found, len(SEEDS))]


def fids(found: Sequence[Result]) -> list[float]:
    """Return the FIDs of runs, infinite for those that diverged."""
    return [each.metrics.get("fid", math.inf) for each in found]


def failed(found: Sequence[Result]) -> int:
    """Count the runs that diverged or ended above the FID of a collapsed generator."""
    return sum(fid > protocol.COLLAPSED for fid in fids(found))


def cell(fid: float) -> str:
    return f"{fid:.2f}" if math.isfinite(fid) else "diverged"


def difference(first: Sequence[float], second: Sequence[float]) -> tuple[float, float] | None:
    """Return the difference of two means over seeds, and its standard error for variances that may differ (Welch).

    The result is None if a side has fewer than two seeds or a run that diverged. Means without the diverged runs would
    flatter their setting.
    """
    if min(len(first), len(second)) < 2 or not all(map(math.isfinite, (*first, *second))):
        return None
    error = math.sqrt(sum(statistics.variance(values) / len(values) for values in (first, second)))
    return statistics.fmean(first) - statistics.fmean(second), error


def verdict(found: tuple[float, float] | None, *, or_equal: bool = False) -> str:
    """Return the verdict on the claim that the first mean is lower, or not higher."""
    if found is None or abs(found[0]) <= ERRORS * found[1]:
        return "not refuted" if found and or_equal else "cannot tell"
    return "holds" if found[0] < 0 else "does not hold"


SIDES: Mapping[str, Sequence[Group]] = {
    **{loss: [setting(loss)] for loss in protocol.LOSSES},
    **{f"mmd-rep with {n} score{'s' * (n > 1)}": [setting("mmd-rep", scores=n)] for n in SCORES},
    **{f"{name} at its best C": [normed(name, scale) for scale in SCALES] for name in NORMS},
}
"""The sides of claims with their settings. The setting with the lowest mean FID represents the side."""
BETTER, NOT_WORSE = "is better than", "is not worse than"
CLAIMS: Sequence[tuple[str, str, str, str]] = (
    ("mmd-rep", BETTER, "mmd-rbf", "5.2, 1)"),
    ("mmd-rep-b", BETTER, "mmd-rbf-b", "5.2, 1)"),
    ("mmd-rbf-b", BETTER, "mmd-rbf", "5.2, 2)"),
    ("mmd-rbf-b", BETTER, "mmd-rq", "5.2, 2)"),
    ("mmd-rep-b", NOT_WORSE, "mmd-rep", "5.2, 3)"),
    ("mmd-rep", BETTER, "non-saturating", "5.2, 4)"),
    ("mmd-rep", BETTER, "hinge", "5.2, 4)"),
    ("mmd-rep-b", BETTER, "non-saturating", "5.2, 4)"),
    ("mmd-rep-b", BETTER, "hinge", "5.2, 4)"),
    *((f"mmd-rep with {n} scores", BETTER, "mmd-rep with 1 score", "5.2, of D.2") for n in SCORES if n > 1),
    ("PICO at its best C", BETTER, "PIM at its best C", "5.2, of C.3"),
)
"""Claims of Wang et al. (2019) about FIDs with their sections, in the order of the paper."""


def claims(raw: Grid) -> str:
    rows = []
    for better, relation, worse, source in CLAIMS:
        sides = [min(map(raw.over_seeds, SIDES[name]), key=lambda found: sum(fids(found))) for name in (better, worse)]
        found = difference(*map(fids, sides))
        said = f"{found[0]:+.2f} ± {found[1]:.2f}" if found else "-"
        cells = [measured(side) for side in sides]
        means = [of[0] if of[-1] == str(len(SEEDS)) else f"{of[0]} ({of[-1]})" for of in cells]
        ruling = verdict(found, or_equal=relation == NOT_WORSE)
        rows.append([f"{better} {relation} {worse}", source, *means, said, ruling])
    head = ["claim", "in the paper", "FID of the first", "FID of the second", "difference", "verdict"]
    return markdown(head, rows)


def repulsions(raw: Grid) -> dict[tuple[str, str], list[Result]]:
    """Return the results of each kernel and lambda, pair after pair."""
    return {
        (kernel, str(lambda_)): raw.over_pairs(setting(loss, **{"lambda": lambda_}))
        for kernel, loss in protocol.KERNELS.items()
        for lambda_ in protocol.LAMBDAS
    }


def lambda_(raw: Grid) -> str:
    """Return the numbers of Figure 3: the FID of each pair for each lambda, with both kernels."""
    rows = []
    for names, found in repulsions(raw).items():
        counts = [f"{number} of {len(found)}" for number in (sum(each.diverged for each in found), failed(found))]
        rows.append([*names, *map(cell, fids(found)), cell(min(fids(found))), *counts])
    return markdown(["kernel", "lambda", *map(" / ".join, protocol.PAIRS), "lowest", "diverged", "failed"], rows)


def observations(raw: Grid) -> str:
    """Return the paper's observations on Figure 3 with the numbers of one seed."""
    columns = []
    for kernel in protocol.KERNELS:
        of = {lambda_: found for (name, lambda_), found in repulsions(raw).items() if name == kernel}
        runs = [run for found in of.values() for run in found]
        lowest = [f"{cell(min(fids(found)))} at {lambda_}" for lambda_, found in of.items()]
        attractive = lowest[: sum(lambda_ < 0 for lambda_ in protocol.LAMBDAS)]
        failures = [f"{failed(found)} at {lambda_}" for lambda_, found in of.items()]
        columns.append([*map("; ".join, (lowest, attractive, failures)), f"{failed(runs)} of {len(runs)}"])
    said = (
        "1) it does well with lambda >= 0, slightly better with 0.5 and 1 than with -0.5, 0 and 2: lowest FID",
        "2) -0.5 is much better than -1 with RBF: lowest FID",
        "3) more runs diverge with a larger lambda: pairs that failed",
        "4) RBF-B makes most of the diverged runs stable: pairs that failed",
    )
    return markdown(["observation", *protocol.KERNELS], zip(said, *columns, strict=True))


def losses(raw: Grid) -> str:
    """Return the table of losses at their best pairs, like Table 1 of the paper, and the floor of the metrics."""
    rows = []
    for chosen in QUESTIONS["losses"]:
        tried, pair = raw.over_pairs(chosen), raw.best_pair(chosen)
        cells = [" / ".join(pair or "-"), *measured(raw.over_seeds(chosen))]
        rows.append([chosen[0][1], *cells, f"{failed(tried)} of {len(tried)}"])
    floor = Result({"status": "finished", "iteration": 0}, {0: read_json(raw.path / FLOOR, metrics=dict)})
    rows.append(["floor: training images", "-", *measured([floor])[:-1], "-", "-"])
    return markdown(["loss", "lr of D / G", *MEASURED, "pairs that failed"], rows)


def progress(raw: Grid) -> str:
    iterations = range(protocol.ITERATIONS // 5, protocol.ITERATIONS + 1, protocol.ITERATIONS // 5)
    rows = []
    for chosen in QUESTIONS["losses"]:
        found = [each.over_time("fid") for each in raw.over_seeds(chosen) if not each.diverged]
        rows.append([chosen[0][1], *(shown(by_time[iteration] for by_time in found) for iteration in iterations)])
    return markdown(["loss", *(f"FID at {iteration:,}" for iteration in iterations)], rows)


def kernel_means(raw: Grid) -> str:
    rows = []
    for loss in protocol.KERNELS.values():
        found = raw.over_seeds(setting(loss))
        for iteration in LOGGED:
            lines = [line for each in found for line in each.training if line["iteration"] == iteration]
            cells = (shown((line[name] for line in lines), 2) for name in MEANS)
            rows.append([loss, f"{iteration:,}", *cells, shown((100 * line["saturated"] for line in lines), 0)])
    return markdown(["loss", "iteration", *map("`{}`".format, MEANS), "saturated pairs, %"], rows)


def scores(raw: Grid) -> str:
    rows = ([str(number), *measured(raw.over_seeds(setting("mmd-rep", scores=number)))] for number in SCORES)
    return markdown(["scores", *MEASURED], rows)


def norms(raw: Grid) -> str:
    """Return the table of PICO and the norm of the reshaped matrix, with the same constants."""
    chosen = {(f"{scale:.3g}", name): normed(name, scale) for scale in SCALES for name in NORMS}
    return markdown(["C", "norm", *MEASURED], ([*cells, *measured(raw.over_seeds(of))] for cells, of in chosen.items()))


def cost(raw: Grid) -> Mapping[Group, Line]:
    """Return the line of each setting in `COSTS`."""
    lines = read_lines(raw.path / COSTS, settings=dict, milliseconds=float)
    return {tuple(line["settings"].items()): line for line in lines}


def costs(raw: Grid) -> str:
    rows = []
    for chosen, line in cost(raw).items():
        of_loss = line["share_of_loss"]
        named = ", ".join([chosen[0][1], *map(" ".join, chosen[1:])])
        rows.append([named, f"{line['milliseconds']:.1f}", "-" if of_loss is None else f"{100 * of_loss:.1f} %"])
    return markdown(["loss", "CPU ms an iteration", "share of the loss"], rows)


def updates(raw: Grid) -> str:
    """Return the table of simultaneous and alternating updates, after as many iterations and in equal time."""
    milliseconds, rows = {chosen: line["milliseconds"] for chosen, line in cost(raw).items()}, []
    for chosen in QUESTIONS["updates"]:
        found = raw.over_seeds(chosen)
        at_end, *_, known_seeds = measured(found)
        # Equal time is the time that the faster kind of updates needs for all iterations.
        fastest = min(milliseconds[each] for each in QUESTIONS["updates"] if each[0] == chosen[0])
        iterations = protocol.ITERATIONS * (fastest / milliseconds[chosen])
        over_time = [each.over_time("fid") for each in found if not each.diverged]
        in_time = shown(float(np.interp(iterations, [*known], [*known.values()])) for known in over_time)
        cells = [f"{milliseconds[chosen]:.1f}", at_end, f"{iterations:,.0f}", in_time, known_seeds]
        rows.append([chosen[0][1], dict(chosen).get("updates", "simultaneous"), *cells])
    head = ["loss", "updates", "CPU ms an iteration", f"FID after {protocol.ITERATIONS:,} iterations"]
    return markdown([*head, "iterations in equal time", "FID in equal time", "seeds"], rows)


TABLES: Mapping[str, Callable[[Grid], str]] = {
    table.__name__.rstrip("_"): table
    for table in (losses, progress, kernel_means, claims, lambda_, observations, scores, norms, updates, costs)
}
"""By the names of their files."""
