"""Simultaneous beside alternating updates: after as many iterations, and after as much time."""

from __future__ import annotations

from pathlib import Path

from sweeps.summary import NONE, markdown

from studies import cells, results, timing
from studies.protocol import ITERATIONS, QUESTIONS, Setting


def table(raw: Path) -> str:
    """Return the table."""
    head = [
        *("loss", "updates", "CPU ms an iteration", f"FID after {ITERATIONS:,} iterations"),
        *("iterations in equal time", "FID in equal time", "seeds"),
    ]
    return markdown(head, (_row(raw, each) for each in QUESTIONS["updates"].settings))


def _row(raw: Path, chosen: Setting) -> list[str]:
    loss, updates = dict(chosen)["loss"], dict(chosen).get("updates", "simultaneous")
    found, costs = results.over_seeds(raw, chosen), timing.costs(raw)
    of_loss = [costs.get(each) for each in QUESTIONS["updates"].settings if dict(each)["loss"] == loss]
    at_end, *_, seeds = cells.measured(found)
    if chosen not in costs:
        return [loss, updates, NONE, at_end, NONE, NONE, seeds]
    # What the fastest needs for all its iterations is the time that all have.
    milliseconds = costs[chosen].milliseconds
    fastest = min(each.milliseconds for each in of_loss if each is not None)
    iterations = ITERATIONS * (fastest / milliseconds)
    fids = [timing.fid_at(each, iterations) for each in found]
    in_time = cells.mean(fid for fid in fids if fid is not None)
    return [loss, updates, f"{milliseconds:.1f}", at_end, f"{iterations:,.0f}", in_time, seeds]
