"""Figure 3 in the small: a bar for each pair of learning rates by lambda, with both kernels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sweeps import figure as sweep
from sweeps.folders import Evaluation, Status
from sweeps.grids import Study
from sweeps.plan import PAIR, Pair, Run
from sweeps.results import Row

from studies import protocol
from studies.repulsion import Group, groups

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = (10.0, 5.4)

STUDY = Study("lambda, with two kernels", (), axis=("lambda",))


def draw(figure: Figure, raw: Path) -> None:
    """Draw a panel for each kernel; bars that go on above what counts as failed are marked."""
    rows = [_row(group, pair) for group in groups(raw) for pair in protocol.PAIRS]
    sweep.draw(figure, STUDY, rows, "fid", protocol.COLLAPSED)


def _row(group: Group, pair: Pair) -> Row:
    """Return a run as the sweeps' figure takes it."""
    settings = {"kernel": group.kernel, "lambda": str(group.lambda_), **dict(zip(PAIR, pair, strict=True)), "seed": "0"}
    found = group.found.get(pair)
    if found is None:
        return Row(Run(settings), Status.MISSING, 0, None, "")
    if found.diverged:
        return Row(Run(settings), Status.DIVERGED, 0, None, "")
    return Row(Run(settings), Status.FINISHED, protocol.ITERATIONS, Evaluation("", {"fid": found.fid}), "")
