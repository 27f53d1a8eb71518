"""The rule by which a claim of one mean FID below another holds, does not hold, or cannot be told from the seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

ERRORS = 2
"""How many standard errors a difference has to be away from nothing."""


class Verdict(str, Enum):
    """What the seeds say of a claim."""

    HOLDS = "holds"
    REFUTED = "does not hold"
    STANDS = "not refuted"
    """Of a claim that something is not worse, and no difference was seen."""
    UNKNOWN = "cannot tell"


class Comparison(NamedTuple):
    """Two means over seeds beside each other."""

    difference: float
    """Of the means; negative if the first one is lower."""
    error: float
    """The standard error of the difference, for variances that need not be equal (Welch)."""

    def verdict(self, *, or_equal: bool) -> Verdict:
        """Return what this says of the claim that the first is lower, or not higher."""
        if abs(self.difference) <= ERRORS * self.error:
            return Verdict.STANDS if or_equal else Verdict.UNKNOWN
        return Verdict.HOLDS if self.difference < 0 else Verdict.REFUTED

    def __str__(self) -> str:
        return f"{self.difference:+.2f} ± {self.error:.2f}"


def compare(first: Sequence[float], second: Sequence[float]) -> Comparison | None:
    """Compare the values of some seeds with those of others, or return None if that cannot be done.

    Each needs two seeds at least, all of them finite: a run that diverged has no place in a mean, and to leave it out
    would flatter.
    """
    if min(len(first), len(second)) < 2 or not all(map(math.isfinite, (*first, *second))):
        return None
    error = math.sqrt(sum(statistics.variance(values) / len(values) for values in (first, second)))
    return Comparison(statistics.fmean(first) - statistics.fmean(second), error)
