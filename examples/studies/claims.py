"""What Wang et al. (2019) claim of losses as plain data: which of two has the lower FID."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from studies import protocol, results
from studies.protocol import Setting, setting
from studies.results import Outcome


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Args:
        name: what it is called.
        settings: of several, the one with the lowest mean FID stands for it.
    """

    name: str
    settings: Sequence[Setting]

    def outcomes(self, raw: Path) -> list[Outcome]:
        """Return the runs of its setting by seed; of several settings, none until all runs of all are known."""
        found = [results.over_seeds(raw, each) for each in self.settings]
        if len(found) == 1:
            return found[0]
        return min(found, key=_mean_fid) if all(len(each) == len(protocol.SEEDS) for each in found) else []


@dataclass(frozen=True)
class Claim:
    """That one side has a lower FID than the other.

    Args:
        source: where the paper says so.
        better: the one that is said to be better.
        worse: the other.
        or_equal: whether the claim is only that it is not worse.
    """

    source: str
    better: Side
    worse: Side
    or_equal: bool = False

    def __str__(self) -> str:
        return f"{self.better.name} is {'not worse' if self.or_equal else 'better'} than {self.worse.name}"


def _loss(name: str) -> Side:
    return Side(name, [setting(name)])


def _scores(count: int) -> Side:
    name = f"mmd-rep with {count} {'score' if count == 1 else 'scores'}"
    return Side(name, [setting("mmd-rep", scores=count)])


def _norm(name: str) -> Side:
    scales = [setting("mmd-rep", normalisation=protocol.NORMS[name], scale=scale) for scale in protocol.SCALES]
    return Side(f"{name} at its best C", scales)


CLAIMS: Sequence[Claim] = (
    Claim("5.2, 1)", _loss("mmd-rep"), _loss("mmd-rbf")),
    Claim("5.2, 1)", _loss("mmd-rep-b"), _loss("mmd-rbf-b")),
    Claim("5.2, 2)", _loss("mmd-rbf-b"), _loss("mmd-rbf")),
    Claim("5.2, 2)", _loss("mmd-rbf-b"), _loss("mmd-rq")),
    Claim("5.2, 3)", _loss("mmd-rep-b"), _loss("mmd-rep"), or_equal=True),
    *(
        Claim("5.2, 4)", _loss(better), _loss(worse))
        for better in ("mmd-rep", "mmd-rep-b")
        for worse in ("non-saturating", "hinge")
    ),
    *(Claim("5.2, of D.2", _scores(count), _scores(1)) for count in protocol.SCORES if count > 1),
    Claim("5.2, of C.3", _norm("PICO"), _norm("PIM")),
)
"""In the order of the paper."""


def _mean_fid(found: Sequence[Outcome]) -> float:
    """Return the mean over seeds, infinite if one diverged."""
    return statistics.fmean(each.fid for each in found)
