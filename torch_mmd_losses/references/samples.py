"""Checks of the samples that are compared with a reference."""

from __future__ import annotations

from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.pairs import reach
from torch_mmd_losses.pairs.blind_kernels import EXAMINED, warn_of_one_value
from torch_mmd_losses.references.form import Form
from torch_mmd_losses.types import Estimator

ESTIMATORS = ("biased", "unbiased")


def of_dimension(name: str, scores: Tensor, form: Form) -> Tensor:
    """Return scores as a matrix of the dimension of the reference, or raise."""
    matrix = checks.scores(name, scores)
    dimension = form.like.shape[1]
    if matrix.shape[1] != dimension:
        raise ValueError(
            f"{name}: expected scores of the dimension of the reference, d={dimension}, got d={matrix.shape[1]}"
        )
    return matrix


def check_estimator(estimator: Estimator, form: Form, count: int | None) -> None:
    """Raise if an estimator is unknown, or not defined for the reference and `count` fake samples.

    If `count` is None, the number is not checked.
    """
    checks.one_of("estimator", estimator, ESTIMATORS)
    if estimator == "biased":
        return
    if count is not None and count < 2:
        raise ValueError(f"fake: expected at least 2 samples for estimator='unbiased', got {count}")
    if not form.has_pairs:
        raise ValueError(
            "estimator: expected 'biased' for a reference whose squared weights do not add up to less than the "
            "square of their sum, got 'unbiased'"
        )


def warn_of_bandwidth(form: Form, fake: Tensor) -> None:
    """Warn if the kernel does not distinguish some rows and fake samples."""
    rows = form.examples()[:EXAMINED]
    if reach.is_readable(fake) and reach.is_readable(rows):
        warn_of_one_value("MMDReference", [form.kernel], rows.to(fake), fake.detach()[:EXAMINED])
