"""The paper's claims about FIDs, each with its numbers and what the seeds say."""

from __future__ import annotations

from pathlib import Path

from sweeps.summary import NONE, markdown

from studies import cells, protocol
from studies.claims import CLAIMS, Claim, Side
from studies.comparison import Verdict, compare


def table(raw: Path) -> str:
    """Return the table."""
    head = ["claim", "in the paper", "FID of the first", "FID of the second", "difference", "verdict"]
    return markdown(head, (_row(raw, claim) for claim in CLAIMS))


def _row(raw: Path, claim: Claim) -> list[str]:
    better, worse = (side.outcomes(raw) for side in (claim.better, claim.worse))
    found = compare([each.fid for each in better], [each.fid for each in worse])
    verdict = Verdict.UNKNOWN if found is None else found.verdict(or_equal=claim.or_equal)
    sides = (_fids(raw, side) for side in (claim.better, claim.worse))
    return [str(claim), claim.source, *sides, NONE if found is None else str(found), verdict.value]


def _fids(raw: Path, side: Side) -> str:
    fid, _, _, seeds = cells.measured(side.outcomes(raw))
    return fid if seeds == str(len(protocol.SEEDS)) else f"{fid} ({seeds})"
