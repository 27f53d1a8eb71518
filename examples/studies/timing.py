"""Iterations as time: what one costs, and how far a run was at a time."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from dcgan.reading import read_lines

from studies.costs import FILE
from studies.protocol import Setting
from studies.results import Outcome


class Cost(NamedTuple):
    """What an iteration of a setting takes on the machine of the study."""

    milliseconds: float
    """CPU time of one thread."""
    share_of_loss: float | None
    """The share of it for the losses and their gradients by the scores, if that was measured."""


def costs(raw: Path) -> Mapping[Setting, Cost]:
    """Return what was measured, by setting."""
    path = raw / FILE
    lines = read_lines(path, settings=dict, milliseconds=float) if path.exists() else ()
    return {tuple(line["settings"].items()): Cost(line["milliseconds"], line["share_of_loss"]) for line in lines}


def fid_at(outcome: Outcome, iteration: float) -> float | None:
    """Return the FID of a run at an iteration, on the straight line between the evaluations before and after it.

    It is None if the iteration is not between two evaluations.
    """
    for before, after in itertools.pairwise(sorted(outcome.evaluations)):
        if before <= iteration <= after:
            part = (iteration - before) / (after - before)
            return (1 - part) * outcome.evaluations[before]["fid"] + part * outcome.evaluations[after]["fid"]
    return None
