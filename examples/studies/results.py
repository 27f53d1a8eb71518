"""What the raw logs say: the runs, the best learning rates of each loss, and numbers over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.folders import Status
from sweeps.plan import Pair, Run

from studies import logs, protocol
from studies.protocol import Setting


@dataclass(frozen=True)
class Outcome:
    """A run that has come to its end.

    Args:
        run: which one.
        diverged: whether a number of it was not finite.
        training: the lines of its log.
        evaluations: its metrics by iteration.
    """

    run: Run
    diverged: bool
    training: Sequence[Mapping[str, Any]]
    evaluations: Mapping[int, Mapping[str, float]]

    @property
    def metrics(self) -> Mapping[str, float]:
        """The metrics at its end, none if it diverged."""
        return {} if self.diverged else self.evaluations[max(self.evaluations)]

    @property
    def fid(self) -> float:
        """The FID at its end, infinite if it diverged."""
        return self.metrics.get("fid", math.inf)

    @property
    def failed(self) -> bool:
        """Whether it diverged or ended with images that are none."""
        return self.fid > protocol.COLLAPSED


def outcome(raw: Path, run: Run) -> Outcome | None:
    """Return how a run ended, or None if it is not known."""
    path = raw / f"{run.name}.jsonl"
    if not path.exists():
        return None
    found = logs.read(path)
    return Outcome(
        run,
        found["run"][0]["status"] == Status.DIVERGED.value,
        found["training"],
        {line["iteration"]: line["metrics"] for line in found["evaluation"]},
    )


def any_known(raw: Path) -> bool:
    """Return whether there is a raw log of any run."""
    return any(raw.glob("loss=*.jsonl"))


def known(raw: Path, runs: Iterable[Run]) -> list[Outcome]:
    """Return those of some runs that have come to their end."""
    return [found for run in runs if (found := outcome(raw, run)) is not None]


def over_pairs(raw: Path, chosen: Setting) -> dict[Pair, Outcome]:
    """Return what is known of the first seed of a setting, by pair of learning rates."""
    runs = (protocol.run_of(chosen, pair, protocol.SEEDS[0]) for pair in protocol.PAIRS)
    return {each.run.pair: each for each in known(raw, runs)}


def best_pair(raw: Path, chosen: Setting) -> Pair | None:
    """Return the pair with the lowest FID of the first seed, or None if a pair is not known yet or all diverged."""
    found = over_pairs(raw, chosen)
    if len(found) < len(protocol.PAIRS) or all(each.diverged for each in found.values()):
        return None
    return min(found, key=lambda pair: found[pair].fid)


def best_pairs(raw: Path) -> dict[str, Pair]:
    """Return the best pair of each loss in the table of losses."""
    pairs = {dict(each)["loss"]: best_pair(raw, each) for each in protocol.QUESTIONS["losses"].settings}
    return {loss: pair for loss, pair in pairs.items() if pair is not None}


def over_seeds(raw: Path, chosen: Setting) -> list[Outcome]:
    """Return what is known of a setting at the pair that is best for its loss."""
    pair = best_pair(raw, protocol.setting(dict(chosen)["loss"]))
    return known(raw, (protocol.run_of(chosen, pair, seed) for seed in protocol.SEEDS)) if pair else []
