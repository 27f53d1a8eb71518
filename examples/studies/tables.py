"""The tables of the study on Fashion-MNIST, from its raw logs; logs may be missing."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from studies import protocol
from studies.logs import Grid, Outcome, seeds
from studies.protocol import NORMS, QUESTIONS, SCALES, SCORES, normed, setting
from sweeps.runs import Group, Pair
from sweeps.tables import markdown, shown
from training.files import read_json, read_lines

COSTS, FLOOR = "costs.jsonl", "floor.json"
"""The cost of an iteration of each setting, and the result of `evaluate.py --floor`: files among the raw logs."""
MEASURED = ("FID", "KID", "classes covered", "seeds")
MEANS = ("k_rr", "k_rf", "k_ff")
LOGGED = (1, 100, 400, 2000)  # iterations in the table of mean kernel values
ERRORS = 2  # standard errors by which a difference has to exceed zero


def measured(raw: Grid, found: Sequence[Outcome]) -> list[str]:
    """Return the cells `MEASURED` of the outcomes of a setting."""
    return [*metrics([each.metrics for each in found if not each.diverged]), seeds(found, raw.seeds)]


def metrics(found: Sequence[Mapping[str, float]]) -> list[str]:
    """Return the cells of metrics, with covered classes in per cent."""
    covered = shown((100 * each["class_coverage"] for each in found), 0) + " %" * bool(found)
    return [shown(each["fid"] for each in found), shown(each["kid_mean"] for each in found), covered]


def fid(value: float | None) -> str:
    """Return the cell of an FID, which is None if unknown and infinite if the run diverged."""
    return "-" if value is None else f"{value:.2f}" if math.isfinite(value) else "diverged"


def share(number: int, known: int, planned: int) -> str:
    """Return the cell that counts runs of a kind among the known ones, and says whether others are missing."""
    return f"{number} of {known}{'' if known == planned else ' so far'}" if known else "-"


def failed(found: Iterable[Outcome]) -> int:
    """Count the runs that diverged or ended above the FID of a collapsed generator."""
    return sum(each.fid > protocol.COLLAPSED for each in found)


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


class Side(NamedTuple):
    """One side of a claim: a name, and settings. The setting with the lowest mean FID represents the side."""

    name: str
    settings: Sequence[Group]

    def outcomes(self, raw: Grid) -> list[Outcome]:
        """Return the outcomes of all seeds; with several settings, an empty list if a run is missing."""
        found = [raw.over_seeds(each) for each in self.settings]
        if len(found) > 1 and any(len(each) < len(raw.seeds) for each in found):
            return []
        return min(found, key=lambda of: statistics.fmean(each.fid for each in of)) if len(found) > 1 else found[0]


LOSS = {loss: Side(loss, [setting(loss)]) for loss in protocol.LOSSES}
SCORE = {n: Side(f"mmd-rep with {n} score{'s' * (n > 1)}", [setting("mmd-rep", scores=n)]) for n in SCORES}
NORM = {name: Side(f"{name} at its best C", [normed(name, scale) for scale in SCALES]) for name in NORMS}
BETTER, NOT_WORSE = "is better than", "is not worse than"
CLAIMS: Sequence[tuple[Side, str, Side, str]] = (
    (LOSS["mmd-rep"], BETTER, LOSS["mmd-rbf"], "5.2, 1)"),
    (LOSS["mmd-rep-b"], BETTER, LOSS["mmd-rbf-b"], "5.2, 1)"),
    (LOSS["mmd-rbf-b"], BETTER, LOSS["mmd-rbf"], "5.2, 2)"),
    (LOSS["mmd-rbf-b"], BETTER, LOSS["mmd-rq"], "5.2, 2)"),
    (LOSS["mmd-rep-b"], NOT_WORSE, LOSS["mmd-rep"], "5.2, 3)"),
    (LOSS["mmd-rep"], BETTER, LOSS["non-saturating"], "5.2, 4)"),
    (LOSS["mmd-rep"], BETTER, LOSS["hinge"], "5.2, 4)"),
    (LOSS["mmd-rep-b"], BETTER, LOSS["non-saturating"], "5.2, 4)"),
    (LOSS["mmd-rep-b"], BETTER, LOSS["hinge"], "5.2, 4)"),
    *((SCORE[number], BETTER, SCORE[1], "5.2, of D.2") for number in SCORES if number > 1),
    (NORM["PICO"], BETTER, NORM["PIM"], "5.2, of C.3"),
)
"""Claims of Wang et al. (2019) about FIDs with their sections, in the order of the paper."""


def claims(raw: Grid) -> str:
    rows = []
    for better, relation, worse, source in CLAIMS:
        sides = [side.outcomes(raw) for side in (better, worse)]
        found = difference(*([each.fid for each in side] for side in sides))
        said = f"{found[0]:+.2f} ± {found[1]:.2f}" if found else "-"
        cells = [measured(raw, side) for side in sides]
        fids = [of[0] if of[-1] == str(len(raw.seeds)) else f"{of[0]} ({of[-1]})" for of in cells]
        ruling = verdict(found, or_equal=relation == NOT_WORSE)
        rows.append([f"{better.name} {relation} {worse.name}", source, *fids, said, ruling])
    head = ["claim", "in the paper", "FID of the first", "FID of the second", "difference", "verdict"]
    return markdown(head, rows)


def repulsions(raw: Grid) -> dict[tuple[str, str], dict[Pair, Outcome]]:
    """Return the outcomes of each kernel and lambda by pair of learning rates."""
    return {
        (kernel, str(lambda_)): raw.over_pairs(setting(loss, **{"lambda": lambda_}))
        for kernel, loss in protocol.KERNELS.items()
        for lambda_ in protocol.LAMBDAS
    }


def lowest(found: Mapping[Pair, Outcome]) -> str:
    return fid(min((each.fid for each in found.values()), default=None))


def lambdas(raw: Grid) -> str:
    """Return the numbers of Figure 3: the FID of each pair for each lambda, with both kernels."""
    rows = []
    for names, found in repulsions(raw).items():
        fids = [fid(found[pair].fid if pair in found else None) for pair in raw.pairs]
        numbers = sum(run.diverged for run in found.values()), failed(found.values())
        rows.append([*names, *fids, lowest(found), *(share(each, len(found), len(raw.pairs)) for each in numbers)])
    return markdown(["kernel", "lambda", *map(" / ".join, raw.pairs), "lowest", "diverged", "failed"], rows)


def observations(raw: Grid) -> str:
    """Return the paper's observations on Figure 3 with the numbers of one seed."""
    columns = []
    for kernel in protocol.KERNELS:
        of = {lambda_: found for (name, lambda_), found in repulsions(raw).items() if name == kernel}
        runs = [run for found in of.values() for run in found.values()]
        best = {lambda_: f"{lowest(found)} at {lambda_}" for lambda_, found in of.items()}
        attractive = [cell for lambda_, cell in best.items() if float(lambda_) < 0]
        failures = [f"{failed(found.values()) if found else '-'} at {lambda_}" for lambda_, found in of.items()]
        in_all = share(failed(runs), len(runs), len(of) * len(raw.pairs))
        columns.append([*map("; ".join, (best.values(), attractive, failures)), in_all])
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
    for chosen in QUESTIONS["losses"].settings:
        tried, pair = raw.over_pairs(chosen), raw.best_pair(chosen)
        cells = [" / ".join(pair) if pair else "-", *measured(raw, raw.over_seeds(chosen))]
        rows.append([chosen[0][1], *cells, share(failed(tried.values()), len(tried), len(raw.pairs))])
    floor = [read_json(raw.path / FLOOR, metrics=dict)["metrics"]] if (raw.path / FLOOR).exists() else []
    rows.append(["floor: training images", "-", *metrics(floor), "-", "-"])
    return markdown(["loss", "lr of D / G", *MEASURED, "pairs that failed"], rows)


def progress(raw: Grid) -> str:
    iterations = range(protocol.ITERATIONS // 5, protocol.ITERATIONS + 1, protocol.ITERATIONS // 5)
    rows = []
    for chosen in QUESTIONS["losses"].settings:
        found = [each for each in raw.over_seeds(chosen) if not each.diverged]
        rows.append([chosen[0][1], *(shown(each.fid_at(iteration) for each in found) for iteration in iterations)])
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


def choices(raw: Grid, head: Sequence[str], settings: Mapping[tuple[str, ...], Group]) -> str:
    """Return the table of settings of the repulsive loss, by their first cells."""
    rows = ([*cells, *measured(raw, raw.over_seeds(chosen))] for cells, chosen in settings.items())
    return markdown([*head, *MEASURED], rows)


def milliseconds(raw: Grid) -> Mapping[Group, tuple[float, float | None]]:
    """Return the CPU time of an iteration by setting, and the share of the losses in it if that was measured."""
    lines = read_lines(raw.path / COSTS, settings=dict, milliseconds=float)
    return {tuple(line["settings"].items()): (line["milliseconds"], line["share_of_loss"]) for line in lines}


def costs(raw: Grid) -> str:
    rows = []
    for chosen, (cost, of_loss) in milliseconds(raw).items():
        named = ", ".join([chosen[0][1], *map(" ".join, chosen[1:])])
        rows.append([named, f"{cost:.1f}", "-" if of_loss is None else f"{100 * of_loss:.1f} %"])
    return markdown(["loss", "CPU ms an iteration", "share of the loss"], rows or [["-"] * 3])


def updates(raw: Grid) -> str:
    """Return the table of simultaneous and alternating updates, after as many iterations and in equal time."""
    known, rows = {chosen: cost for chosen, (cost, _) in milliseconds(raw).items()}, []
    for chosen in QUESTIONS["updates"].settings:
        found = raw.over_seeds(chosen)
        at_end, *_, known_seeds = measured(raw, found)
        cells = ["-", at_end, "-", "-"]
        if chosen in known:
            # Equal time is the time that the faster kind of updates needs for all iterations.
            alike = [known[each] for each in QUESTIONS["updates"].settings if each[0] == chosen[0] and each in known]
            iterations = protocol.ITERATIONS * (min(alike) / known[chosen])
            in_time = shown(each.fid_at(iterations) for each in found if not each.diverged)
            cells = [f"{known[chosen]:.1f}", at_end, f"{iterations:,.0f}", in_time]
        rows.append([chosen[0][1], dict(chosen).get("updates", "simultaneous"), *cells, known_seeds])
    head = ["loss", "updates", "CPU ms an iteration", f"FID after {protocol.ITERATIONS:,} iterations"]
    return markdown([*head, "iterations in equal time", "FID in equal time", "seeds"], rows)


TABLES: Mapping[str, Callable[[Grid], str]] = {
    "losses": losses,
    "progress": progress,
    "kernel_means": kernel_means,
    "claims": claims,
    "lambda": lambdas,
    "observations": observations,
    "scores": lambda raw: choices(raw, ["scores"], {(str(each),): setting("mmd-rep", scores=each) for each in SCORES}),
    # PICO and the norm of the reshaped matrix, with the same constants.
    "norms": lambda raw: choices(raw, ["C", "norm"], {(f"{c:.3g}", n): normed(n, c) for c in SCALES for n in NORMS}),
    "updates": updates,
    "costs": costs,
}
