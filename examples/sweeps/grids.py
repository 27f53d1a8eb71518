"""The paper's sweeps as plain data: which options of a training script take which values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Value = str | int | float
Grid = Mapping[str, tuple[Value, ...]]
"""Values by option; it stands for all their combinations."""

RATES = (1e-4, 2e-4, 5e-4, 1e-3)
"""The learning rates of D and of G in Section 5.1, 16 pairs in all."""

TOTAL_SCALES = (16, 32, 64, 128, 256)
"""C^K as the authors count the constant C of all K layers."""


@dataclass(frozen=True)
class Study:
    """A sweep of the paper; every setting is run with all pairs of learning rates."""

    meaning: str
    """What it shows, in a few words."""
    grids: tuple[Grid, ...]
    """The settings: all combinations of each grid."""
    axis: tuple[str, ...]
    """The options along the horizontal axis of the figure; the others make its panels."""


STUDIES: Mapping[str, Study] = {
    "table1": Study(
        "the losses of Table 1",
        ({"loss": ("non-saturating", "hinge", "mmd-rbf", "mmd-rq", "mmd-rbf-b", "mmd-rep", "mmd-rep-b")},),
        axis=("loss",),
    ),
    "lambda": Study(
        "lambda, with the kernels RBF and RBF-B (Figure 3)",
        ({"loss": ("mmd-rep", "mmd-rep-b"), "lambda": (-1, -0.5, 0, 0.5, 1, 2)},),
        axis=("lambda",),
    ),
    # With the norm of the reshaped matrix (PIM) the authors ran one constant, and do not say which.
    "constant": Study(
        "the constant C of the spectral normalisation",
        (
            {
                "loss": ("hinge", "mmd-rbf", "mmd-rep", "mmd-rep-b"),
                "normalisation": ("pico",),
                "total-scale": TOTAL_SCALES,
            },
            {"loss": ("hinge", "mmd-rbf", "mmd-rep", "mmd-rep-b"), "normalisation": ("matrix",)},
        ),
        axis=("normalisation", "total-scale"),
    ),
    "scores": Study(
        "the dimension of the scores",
        ({"loss": ("mmd-rep",), "total-scale": TOTAL_SCALES, "scores": (1, 4, 16, 64, 256)},),
        axis=("scores",),
    ),
}


def order(study: Study, option: str, value: str) -> tuple[float, str]:
    """Return what to sort the values of an option by: their size, else their place in the study, else their letters."""
    places = [str(listed) for grid in study.grids for listed in grid.get(option, ())]
    try:
        return float(value), value
    except ValueError:
        return (places.index(value) if value in places else float(len(places))), value
