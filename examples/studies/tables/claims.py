"""The paper's claims about FIDs, each with its numbers and what the seeds say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sweeps.summary import NONE, markdown

from studies import cells, protocol
from studies.claims import CLAIMS, Claim
from studies.comparison import Verdict, compare
from studies.results import Outcome


def table(raw: Path) -> str:
    """Return the table."""
    head = ["claim", "in the paper", "FID of the first", "FID of the second", "difference", "verdict"]
    return markdown(head, (_row(raw, claim) for claim in CLAIMS))


def _row(raw: Path, claim: Claim) -> list[str]:
    better, worse = claim.better.outcomes(raw), claim.worse.outcomes(raw)
    found = compare([each.fid for each in better], [each.fid for each in worse])
    verdict = Verdict.UNKNOWN if found is None else found.verdict(or_equal=claim.or_equal)
    difference = NONE if found is None else str(found)
    return [str(claim), claim.source, _fid(better), _fid(worse), difference, verdict.value]


def _fid(found: Sequence[Outcome]) -> str:
    """Return the mean, and the seeds that it is of unless it is of all."""
    fid, *_, seeds = cells.measured(found)
    return fid if seeds == str(len(protocol.SEEDS)) else f"{fid} ({seeds})"
