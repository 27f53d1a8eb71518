"""The tables of the study, each made of the raw logs alone, however few there are."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from studies import protocol
from studies.logs import Outcome, Raw
from studies.protocol import NORMS, SCALES, SCORES, setting
from sweeps.runs import Group, Pair, Value
from sweeps.tables import markdown, shown, spread
from training.files import read_json, read_lines

COSTS, FLOOR = "costs.jsonl", "floor.json"
"""What an iteration of each setting costs, and what `examples/evaluate.py --floor` found: files among the raw logs."""
MEASURED = ("FID", "KID", "classes covered", "seeds")
ERRORS = 2
"""How many standard errors a difference has to be away from nothing."""


# Cells


def measured(raw: Raw, found: Sequence[Outcome]) -> list[str]:
    """Return the cells of what is measured of a setting over seeds."""
    finished = [each.metrics for each in found if not each.diverged]
    diverged = f", {len(found) - len(finished)} diverged" if len(finished) < len(found) else ""
    return [*metrics(finished), count(len(found), len(raw.seeds)) + diverged]


def metrics(found: Sequence[Mapping[str, float]]) -> list[str]:
    """Return the cells of metrics, the share of classes in per cent."""
    mean, deviation = spread(100 * each["class_coverage"] for each in found) or (None, None)
    covered = "-" if mean is None else f"{mean:.0f}{'' if deviation is None else f' ± {deviation:.0f}'} %"
    return [shown(each["fid"] for each in found), shown(each["kid_mean"] for each in found), covered]


def fid(value: float | None) -> str:
    """Return the FID of a run, infinite if it diverged."""
    return "-" if value is None else f"{value:.2f}" if math.isfinite(value) else "diverged"


def count(known: int, planned: int) -> str:
    """Return how many runs there are, and of how many if some are open."""
    return str(known) if known == planned else f"{known} of {planned}"


def share(number: int, known: int, planned: int) -> str:
    """Return how many of the runs that are known are of a kind, and whether some are open."""
    return f"{number} of {known}{'' if known == planned else ' so far'}" if known else "-"


def failed(found: Iterable[Outcome]) -> int:
    """Return how many runs diverged, or ended with images that are none."""
    return sum(each.fid > protocol.COLLAPSED for each in found)


# Claims


def difference(first: Sequence[float], second: Sequence[float]) -> tuple[float, float] | None:
    """Return the difference of two means over seeds, and its standard error for variances that may differ (Welch).

    It is None without two seeds each. It is None also if a run diverged, which has no place in a mean: to leave it out
    would flatter.
    """
    if min(len(first), len(second)) < 2 or not all(map(math.isfinite, (*first, *second))):
        return None
    error = math.sqrt(sum(statistics.variance(values) / len(values) for values in (first, second)))
    return statistics.fmean(first) - statistics.fmean(second), error


def verdict(found: tuple[float, float] | None, *, or_equal: bool = False) -> str:
    """Return what a difference says of the claim that the first is lower, or not higher."""
    if found is None or abs(found[0]) <= ERRORS * found[1]:
        return "not refuted" if found and or_equal else "cannot tell"
    return "holds" if found[0] < 0 else "does not hold"


Side = tuple[str, Sequence[Group]]
"""One side of a claim: a name, and settings of which the one with the lowest mean FID stands for it."""


def outcomes(raw: Raw, side: Side) -> list[Outcome]:
    """Return the runs of a side by seed; of several settings, none until all runs of all are known."""
    found = [raw.over_seeds(each) for each in side[1]]
    if len(found) > 1 and any(len(each) < len(raw.seeds) for each in found):
        return []
    return found[0] if len(found) == 1 else min(found, key=lambda of: statistics.fmean(each.fid for each in of))


def _loss(name: str) -> Side:
    return name, [setting(name)]


def _scores(number: int) -> Side:
    return f"mmd-rep with {number} score{'' if number == 1 else 's'}", [setting("mmd-rep", scores=number)]


def _norm(name: str) -> Side:
    found = [setting("mmd-rep", normalisation=NORMS[name], scale=scale) for scale in SCALES]
    return f"{name} at its best C", found


NOT_WORSE = "is not worse than"
CLAIMS: Sequence[tuple[Side, str, Side, str]] = (
    (_loss("mmd-rep"), "is better than", _loss("mmd-rbf"), "5.2, 1)"),
    (_loss("mmd-rep-b"), "is better than", _loss("mmd-rbf-b"), "5.2, 1)"),
    (_loss("mmd-rbf-b"), "is better than", _loss("mmd-rbf"), "5.2, 2)"),
    (_loss("mmd-rbf-b"), "is better than", _loss("mmd-rq"), "5.2, 2)"),
    (_loss("mmd-rep-b"), NOT_WORSE, _loss("mmd-rep"), "5.2, 3)"),
    *(
        (_loss(better), "is better than", _loss(worse), "5.2, 4)")
        for better in ("mmd-rep", "mmd-rep-b")
        for worse in ("non-saturating", "hinge")
    ),
    *((_scores(number), "is better than", _scores(1), "5.2, of D.2") for number in SCORES if number > 1),
    (_norm("PICO"), "is better than", _norm("PIM"), "5.2, of C.3"),
)
"""What Wang et al. (2019) say of FIDs, in the order of the paper, and where they do."""


def claims(raw: Raw) -> str:
    """Return the claims, each with its numbers and what the seeds say."""
    rows = []
    for better, relation, worse, source in CLAIMS:
        sides = [outcomes(raw, side) for side in (better, worse)]
        found = difference(*([each.fid for each in side] for side in sides))
        said = f"{found[0]:+.2f} ± {found[1]:.2f}" if found else "-"
        cells = [measured(raw, side) for side in sides]
        fids = [of[0] if of[-1] == str(len(raw.seeds)) else f"{of[0]} ({of[-1]})" for of in cells]
        ruling = verdict(found, or_equal=relation == NOT_WORSE)
        rows.append([f"{better[0]} {relation} {worse[0]}", source, *fids, said, ruling])
    head = ["claim", "in the paper", "FID of the first", "FID of the second", "difference", "verdict"]
    return markdown(head, rows)


# The runs of Figure 3


@dataclass(frozen=True)
class Repulsion:
    """A kernel with one lambda, and its runs by pair of learning rates."""

    kernel: str
    lambda_: Value
    found: Mapping[Pair, Outcome]

    @property
    def lowest(self) -> str:
        """The lowest FID of all pairs."""
        return fid(min((each.fid for each in self.found.values()), default=None))


def repulsions(raw: Raw) -> list[Repulsion]:
    """Return what is known of each kernel, by lambda."""
    return [
        Repulsion(kernel, lambda_, raw.over_pairs(setting(loss, **{"lambda": lambda_})))
        for kernel, loss in protocol.KERNELS.items()
        for lambda_ in protocol.LAMBDAS
    ]


def lambdas(raw: Raw) -> str:
    """Return Figure 3 in numbers: the FID of each pair for each lambda, with both kernels."""
    rows = []
    for each in repulsions(raw):
        fids = [fid(each.found[pair].fid if pair in each.found else None) for pair in raw.pairs]
        numbers = sum(run.diverged for run in each.found.values()), failed(each.found.values())
        shares = [share(number, len(each.found), len(raw.pairs)) for number in numbers]
        rows.append([each.kernel, str(each.lambda_), *fids, each.lowest, *shares])
    return markdown(["kernel", "lambda", *map(" / ".join, raw.pairs), "lowest", "diverged", "failed"], rows)


def observations(raw: Raw) -> str:
    """Return what the paper observes in Figure 3, beside the numbers of one seed."""

    def lowest(of: Sequence[Repulsion]) -> str:
        return "; ".join(f"{each.lowest} at {each.lambda_}" for each in of)

    def failures(of: Sequence[Repulsion]) -> str:
        return "; ".join(f"{failed(each.found.values()) if each.found else '-'} at {each.lambda_}" for each in of)

    def in_all(of: Sequence[Repulsion]) -> str:
        found = [run for each in of for run in each.found.values()]
        return share(failed(found), len(found), len(of) * len(raw.pairs))

    said: Mapping[str, Callable[[Sequence[Repulsion]], str]] = {
        "1) it does well with lambda >= 0, slightly better with 0.5 and 1 than with -0.5, 0 and 2: lowest FID": lowest,
        "2) -0.5 is much better than -1 with RBF: lowest FID": lambda of: lowest(
            [each for each in of if float(each.lambda_) < 0]
        ),
        "3) more runs diverge with a larger lambda: pairs that failed": failures,
        "4) RBF-B makes most of the diverged runs stable: pairs that failed": in_all,
    }
    found = repulsions(raw)
    of_kernels = [[each for each in found if each.kernel == kernel] for kernel in protocol.KERNELS]
    return markdown(["observation", *protocol.KERNELS], ([what, *map(say, of_kernels)] for what, say in said.items()))


# The other tables


def losses(raw: Raw) -> str:
    """Return Table 1 in the small: each loss at its best pair, and the floor of the metrics."""
    rows = []
    for chosen in protocol.QUESTIONS["losses"].settings:
        tried, pair = raw.over_pairs(chosen), raw.best_pair(chosen)
        cells = [" / ".join(pair) if pair else "-", *measured(raw, raw.over_seeds(chosen))]
        rows.append([chosen[0][1], *cells, share(failed(tried.values()), len(tried), len(raw.pairs))])
    floor = [read_json(raw.path / FLOOR, metrics=dict)["metrics"]] if (raw.path / FLOOR).exists() else []
    rows.append(["floor: training images", "-", *metrics(floor), "-", "-"])
    return markdown(["loss", "lr of D / G", *MEASURED, "pairs that failed"], rows)


def scores(raw: Raw) -> str:
    """Return the repulsive loss with several numbers of scores per image."""
    rows = ([str(number), *measured(raw, raw.over_seeds(setting("mmd-rep", scores=number)))] for number in SCORES)
    return markdown(["scores", *MEASURED], rows)


def norms(raw: Raw) -> str:
    """Return PICO beside the norm of the reshaped matrix, constant by constant."""
    rows = []
    for scale, (name, normalisation) in itertools.product(SCALES, NORMS.items()):
        found = raw.over_seeds(setting("mmd-rep", normalisation=normalisation, scale=scale))
        rows.append([f"{scale:.3g}", name, *measured(raw, found)])
    return markdown(["C", "norm", *MEASURED], rows)


def milliseconds(raw: Raw) -> Mapping[Group, tuple[float, float | None]]:
    """Return the CPU time of an iteration by setting, and the share of it for the losses if that was measured."""
    lines = read_lines(raw.path / COSTS, settings=dict, milliseconds=float)
    return {tuple(line["settings"].items()): (line["milliseconds"], line["share_of_loss"]) for line in lines}


def costs(raw: Raw) -> str:
    """Return what an iteration costs with each loss, and how much of it is the loss."""
    rows = [
        [
            ", ".join([chosen[0][1], *(f"{option} {value}" for option, value in chosen[1:])]),
            f"{cost:.1f}",
            "-" if of_loss is None else f"{100 * of_loss:.1f} %",
        ]
        for chosen, (cost, of_loss) in milliseconds(raw).items()
    ]
    return markdown(["loss", "CPU ms an iteration", "share of the loss"], rows or [["-"] * 3])


def updates(raw: Raw) -> str:
    """Return simultaneous beside alternating updates, after as many iterations and after as much time."""
    known, rows = milliseconds(raw), []
    for chosen in protocol.QUESTIONS["updates"].settings:
        found = raw.over_seeds(chosen)
        at_end, *_, seeds = measured(raw, found)
        cost, cells = "-", ["-", "-"]
        if chosen in known:
            # What the fastest needs for all its iterations is the time that all have.
            alike = [each for each in protocol.QUESTIONS["updates"].settings if each[0] == chosen[0] and each in known]
            iterations = protocol.ITERATIONS * (min(known[each][0] for each in alike) / known[chosen][0])
            in_time = [value for each in found if (value := each.fid_at(iterations)) is not None]
            cost, cells = f"{known[chosen][0]:.1f}", [f"{iterations:,.0f}", shown(in_time)]
        rows.append([chosen[0][1], dict(chosen).get("updates", "simultaneous"), cost, at_end, *cells, seeds])
    head = ["loss", "updates", "CPU ms an iteration", f"FID after {protocol.ITERATIONS:,} iterations"]
    return markdown([*head, "iterations in equal time", "FID in equal time", "seeds"], rows)


TABLES: Mapping[str, Callable[[Raw], str]] = {
    "losses": losses,
    "claims": claims,
    "lambda": lambdas,
    "observations": observations,
    "scores": scores,
    "norms": norms,
    "updates": updates,
    "costs": costs,
}
