"""Three-sample test: which of two distributions is nearer to a third one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.estimators.gram_statistics import (
    LEAST,
    GramStatistics,
    covariance,
    gram_statistics,
    of_u_statistic,
)
from torch_mmd_losses.kernels.base import Kernel, check_kernel
from torch_mmd_losses.precision import full_precision
from torch_mmd_losses.results import RelativeTest


class Candidate(NamedTuple):
    """The statistics of a sample that a three-sample test needs.

    They are scalars and vectors as long as the sample, for scores of any dimension.

    Attributes:
        within: pairs of fake samples.
        cross: pairs of a real and a fake sample.
    """

    within: GramStatistics
    cross: GramStatistics

    def tensors(self) -> list[list[Tensor]]:
        """Return all statistics in nested lists, for a `state_dict`."""
        return [list(part) for part in self]

    @classmethod
    def of(cls, tensors: Sequence[Sequence[Tensor]]) -> Candidate:
        """Return the candidate with the given :meth:`tensors`."""
        return cls(*(GramStatistics(*part) for part in tensors))


def relative_mmd_test(
    real: Tensor, fake: Tensor, other: Tensor, kernel: Kernel, *, tile_size: int | None = None
) -> RelativeTest:
    r"""Test whether `fake` is nearer to `real` than `other` is.

    The null hypothesis is :math:`\mathrm{MMD}^2(x, y) \ge \mathrm{MMD}^2(x, z)` for real :math:`x`, fake :math:`y` and
    other :math:`z`. For :math:`m` samples of each, the difference of the two unbiased estimates is asymptotically
    normal:

    .. math::

        statistic = \frac{\mathrm{MMD}_u^2(x, y) - \mathrm{MMD}_u^2(x, z)}{\sqrt{variance}}, \qquad
        p = \Phi(statistic).

    The variance is estimated as in :func:`mmd2_and_variance`, with
    :math:`h = k(y, y') - k(x, y') - k(x', y) - k(z, z') + k(x, z') + k(x', z)`, because both estimates share the real
    samples.

    If the estimate of the variance is not positive, statistic and p-value are NaN. No variance floor is applied, unlike
    in the code of Binkowski et al., where a floor of 1e-5 leads to a p-value of 0 or 1 in this case. To apply a floor,
    compute the statistic from `difference` and `variance`.

    Args:
        real: scores `(m, d)` in any floating-point dtype; `(m,)` and `(m, ...)` are flattened from dim 1.
        fake: scores `(m, d)`, equally many, likewise.
        other: scores `(m, d)`, equally many, likewise.
        kernel: any kernel; `PolynomialKernel()` is the kernel of KID. The bounds of an :class:`RBFBKernel` are ignored.
        tile_size: side length of the tiles used for large batches, >= 1. None picks a default for the device; smaller
            tiles need less memory.

    Returns:
        Difference, variance, statistic and p-value, scalars without a gradient, float64 for float64 scores and float32
        for all others.

    Raises:
        TypeError: if scores are not tensors, `kernel` is not a :class:`Kernel`, or `tile_size` is not an integer.
        ValueError: if scores are empty, not floating-point, not equally many, or fewer than three; if they differ in
            dimension, dtype or device; if `tile_size` is below 1.

    Example:
        >>> real, near, far = torch.randn(500, 2), torch.randn(500, 2) + 0.1, torch.randn(500, 2) + 0.5
        >>> test = relative_mmd_test(real, near, far, PolynomialKernel())
        >>> bool(test.p_value < 0.01)
        True

    References:
        Bounliphone et al. (2016); Binkowski et al. (2018), Section 4.
    """
    check_kernel(kernel)
    x, y = checks.same_space("real", real, "fake", fake)
    z = checks.same_space("real", real, "other", other)[1]
    checks.equally_many({"real": x, "fake": y, "other": z}, least=LEAST)
    near, far = (candidate(x, scores, kernel, tile_size=tile_size) for scores in (y, z))
    return compare(near, far, dtype=x.dtype)


@torch.no_grad()
def candidate(real: Tensor, fake: Tensor, kernel: Kernel, *, tile_size: int | None = None) -> Candidate:
    """Return the statistics of `fake` for tests against any other sample, given the same `real` samples.

    With these statistics, samples can be compared later without keeping their scores. The arguments are those of
    :func:`relative_mmd_test`.
    """
    check_kernel(kernel)
    real, fake = checks.same_space("real", real, "fake", fake)
    checks.equally_many({"real": real, "fake": fake}, least=LEAST)
    tile_size = checks.tile_size(tile_size)
    with full_precision(real.device):
        return Candidate(
            within=gram_statistics(kernel, fake, None, tile_size), cross=gram_statistics(kernel, real, fake, tile_size)
        )


def compare(fake: Candidate, other: Candidate, *, dtype: torch.dtype = torch.float64) -> RelativeTest:
    """Return the result of :func:`relative_mmd_test`, in `dtype`, for two candidates with the same real samples."""
    m = fake.within.rows.shape[0]
    shared = covariance(fake.cross.rows, other.cross.rows)
    first, second = -2 * shared, -4 * shared
    for within, cross in (fake, other):
        own = covariance(within.rows, cross.columns)
        first = first + cross.by_row + within.by_row + cross.by_column - 2 * own
        second = second + within.variance + 2 * cross.variance - 4 * own
    difference = (fake.within.mean - 2 * fake.cross.mean) - (other.within.mean - 2 * other.cross.mean)
    variance = of_u_statistic(first, second, m)
    statistic = torch.where(variance > 0, difference / variance.sqrt(), torch.nan)
    found = (difference, variance, statistic, torch.special.ndtr(statistic))
    return RelativeTest(*(number.to(dtype) for number in found))
