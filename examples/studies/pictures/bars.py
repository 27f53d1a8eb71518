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
from studies.repulsion import Repulsion, repulsions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = (10.0, 5.4)

STUDY = Study("lambda, with two kernels", (), axis=("lambda",))


def draw(figure: Figure, raw: Path) -> None:
    """Draw a panel for each kernel; bars that go on above what counts as failed are marked."""
    rows = [_row(repulsion, pair) for repulsion in repulsions(raw) for pair in protocol.PAIRS]
    sweep.draw(figure, STUDY, rows, "fid", protocol.COLLAPSED)


def _row(repulsion: Repulsion, pair: Pair) -> Row:
    """Return a run as the sweeps' figure takes it."""
    settings = {
        "kernel": repulsion.kernel,
        "lambda": str(repulsion.lambda_),
        **dict(zip(PAIR, pair, strict=True)),
        "seed": "0",
    }
    found = repulsion.found.get(pair)
    if found is None:
        return Row(Run(settings), Status.MISSING, 0, None, "")
    if found.diverged:
        return Row(Run(settings), Status.DIVERGED, 0, None, "")
    return Row(Run(settings), Status.FINISHED, protocol.ITERATIONS, Evaluation("", {"fid": found.fid}), "")
