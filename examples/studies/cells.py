"""How the numbers of the study stand in its tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from sweeps.plan import Pair
from sweeps.results import spread
from sweeps.summary import NONE

from studies import protocol
from studies.results import Outcome

MEASURED = ("FID", "KID", "classes covered", "seeds")
"""The headings of what is measured over seeds."""


def measured(found: Sequence[Outcome]) -> list[str]:
    """Return the cells of what is measured, of the runs of a setting over seeds."""
    finished = [each.metrics for each in found if not each.diverged]
    diverged = len(found) - len(finished)
    seeds = count(len(found), len(protocol.SEEDS)) + (f", {diverged} diverged" if diverged else "")
    return [*metrics(finished), seeds]


def metrics(found: Sequence[Mapping[str, float]]) -> list[str]:
    """Return the cells of metrics."""
    return [
        mean(each["fid"] for each in found),
        mean(each["kid_mean"] for each in found),
        percentage(each["class_coverage"] for each in found),
    ]


def mean(values: Iterable[float]) -> str:
    """Return the mean ± the standard deviation."""
    return str(spread(values) or NONE)


def percentage(values: Iterable[float]) -> str:
    """Return the mean ± the standard deviation of shares."""
    found = spread(100 * value for value in values)
    if found is None:
        return NONE
    return f"{found.mean:.0f}{'' if found.deviation is None else f' ± {found.deviation:.0f}'} %"


def fid(value: float | None) -> str:
    """Return the FID of a run, infinite if it diverged and None if it is not known."""
    if value is None:
        return NONE
    return f"{value:.2f}" if math.isfinite(value) else "diverged"


def count(known: int, planned: int) -> str:
    """Return how many runs there are, and of how many if some are open."""
    return str(known) if known == planned else f"{known} of {planned}"


def share(failed: int, known: int, planned: int) -> str:
    """Return how many runs of those that are known failed, and whether some are open."""
    if not known:
        return NONE
    return f"{failed} of {known}{'' if known == planned else ' so far'}"


def pair(chosen: Pair | None) -> str:
    """Return a pair of learning rates."""
    return NONE if chosen is None else " / ".join(chosen)
