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
    """All that a three-sample test takes from a sample: vectors as long as the sample, whatever the dimension.

    Attributes:
        within: pairs of fake samples.
        cross: pairs of a real and a fake sample.
    """

    within: GramStatistics
    cross: GramStatistics

    def tensors(self) -> list[list[Tensor]]:
        """Return all of it in lists, for a `state_dict`."""
        return [list(part) for part in self]

    @classmethod
    def of(cls, tensors: Sequence[Sequence[Tensor]]) -> Candidate:
        """Return the candidate with these :meth:`tensors`."""
        return cls(*(GramStatistics(*part) for part in tensors))


def relative_mmd_test(
    real: Tensor, fake: Tensor, other: Tensor, kernel: Kernel, *, tile_size: int | None = None
) -> RelativeTest:
    r"""Test whether `fake` is nearer to `real` than `other` is.

    The null hypothesis is that it is not, :math:`\mathrm{MMD}^2(x, y) \ge \mathrm{MMD}^2(x, z)` for real :math:`x`,
    fake :math:`y` and other :math:`z`. For :math:`m` samples of each, the difference of the two unbiased estimates is
    asymptotically normal:

    .. math::

        statistic = \frac{\mathrm{MMD}_u^2(x, y) - \mathrm{MMD}_u^2(x, z)}{\sqrt{variance}}, \qquad
        p = \Phi(statistic).

    The variance is estimated as in :func:`mmd2_and_variance`, with
    :math:`h = k(y, y') - k(x, y') - k(x', y) - k(z, z') + k(x, z') + k(x', z)`: both estimates share the real samples.

    Where the estimate of the variance is not positive, statistic and p-value are NaN. Nothing is raised to a floor, as
    the code of Binkowski et al. does (1e-5), where such a case gets a p-value of 0 or 1. From `difference` and
    `variance` you get the statistic with any floor.

    Args:
        real: scores `(m, d)` in any floating-point dtype; `(m,)` and `(m, ...)` are flattened from dim 1.
        fake: scores `(m, d)`, equally many, likewise.
        other: scores `(m, d)`, equally many, likewise.
        kernel: any kernel; a bounded one is taken without its bounds. KID is `PolynomialKernel()`.
        tile_size: rows and columns of the parts in which large samples are processed, >= 1. None chooses by the device.

    Returns:
        Difference, variance, statistic and p-value, scalars without a gradient, float64 for float64 scores and float32
        for all others.

    Raises:
        TypeError: if scores are no tensors, `kernel` is no :class:`Kernel`, or `tile_size` no integer.
        ValueError: if scores are empty, not floating-point, not equally many or fewer than three; if they differ in
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
    """Return what a test of `fake` against any other sample takes, for the same `real` samples.

    With this, samples of some time ago can be compared without keeping their scores. The arguments are those of
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
    """Return the test of two candidates for the same real samples, as :func:`relative_mmd_test`, in `dtype`."""
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
