"""Three-sample test: which of two distributions is nearer to a third one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses import checks, usage_warnings
from torch_mmd_losses.estimators.gram_statistics import LEAST, GramStatistics, gram_statistics, variance_of_effects
from torch_mmd_losses.kernels.base import Kernel, check_kernel
from torch_mmd_losses.pairs.blind_kernels import warn_of_one_value
from torch_mmd_losses.pairs.reach import is_readable
from torch_mmd_losses.precision import full_precision
from torch_mmd_losses.results import RelativeTest
from torch_mmd_losses.two_sample.skewness import Moments, moments, normal_score, skewness


class Candidate(NamedTuple):
    """The statistics of a sample that a three-sample test needs.

    For scores of any dimension, they are scalars and vectors with one number for each sample.

    Attributes:
        within: pairs of fake samples.
        cross: pairs of a real and a fake sample.
        moments: needed in comparisons with a sample of another size.
    """

    within: GramStatistics
    cross: GramStatistics
    moments: Moments | None = None

    def tensors(self) -> list[list[Tensor]]:
        """Return the statistics, without the moments, in nested lists, for a `state_dict`."""
        return [list(self.within), list(self.cross)]

    @classmethod
    def of(cls, tensors: Sequence[Sequence[Tensor]]) -> Candidate:
        """Return the candidate with the given :meth:`tensors`."""
        within, cross = (GramStatistics(*part) for part in tensors)
        return cls(within, cross)


def relative_mmd_test(
    real: Tensor, fake: Tensor, other: Tensor, kernel: Kernel, *, tile_size: int | None = None
) -> RelativeTest:
    r"""Test whether `fake` is nearer to `real` than `other` is.

    The null hypothesis is :math:`\mathrm{MMD}^2(x, y) \ge \mathrm{MMD}^2(x, z)` for real :math:`x`, fake :math:`y` and
    other :math:`z`. The difference of the two unbiased estimates is asymptotically normal:

    .. math::

        statistic = \frac{\mathrm{MMD}_u^2(x, y) - \mathrm{MMD}_u^2(x, z)}{\sqrt{variance}}, \qquad
        p = \Phi(statistic) \text{ if fake and other are equally many.}

    The variance is estimated as in :func:`mmd2_and_variance`. Both estimates share the real samples, whose effects are
    :math:`2\,(E_z k(x, z) - E_y k(x, y))`. If the numbers of fake and other samples differ, the statistic is skewed.
    Its skewness is then removed, :math:`p = \Phi(T + \kappa (T^2 + 1) + \kappa^2 T^3 / 3)` for the statistic :math:`T`
    and a skewness :math:`\kappa` that the :doc:`theory page </theory>` defines, and all kernel values are evaluated
    twice. The :doc:`benchmarks page </benchmarks>` has the levels of the test in simulations.

    If the estimate of the variance is zero, statistic and p-value are NaN. No variance floor is applied, unlike in the
    code of Binkowski et al., where a floor of 1e-5 leads to a p-value of 0 or 1 in this case. To apply a floor, compute
    the statistic from `difference` and `variance`.

    Args:
        real: scores `(m, d)` in any floating-point dtype; `(m,)` and `(m, ...)` are flattened from dim 1.
        fake: scores `(n, d)`, likewise.
        other: scores `(l, d)`, likewise.
        kernel: any kernel; `PolynomialKernel()` is the kernel of KID. The bounds of an :class:`RBFBKernel` are ignored.
        tile_size: side length of the tiles used for large batches, >= 1. None picks a default for the device; smaller
            tiles need less memory.

    Returns:
        Difference, variance, statistic and p-value, scalars without a gradient, float64 for float64 scores and float32
        for all others.

    Raises:
        TypeError: if scores are not tensors, `kernel` is not a :class:`Kernel`, or `tile_size` is not an integer.
        ValueError: if scores are empty, not floating-point, or fewer than four; if they differ in dimension, dtype or
            device; if scores are NaN or infinite; if `tile_size` is below 1.

    Warns:
        UsageWarning: if all kernel values are zero, or all are :math:`k(a, a)`, as in :func:`mmd2`. Only the first
            call from each place in the code is examined.

    Example:
        >>> real, near = torch.randn(500, 2), torch.randn(500, 2) + 0.1
        >>> far = torch.randn(500, 2) + 0.5
        >>> test = relative_mmd_test(real, near, far, PolynomialKernel())
        >>> bool(test.p_value < 0.01)
        True

    References:
        Bounliphone et al. (2016); Binkowski et al. (2018), Section 4; Helmers (1991) and Hall (1992) for the skewness.
    """
    check_kernel(kernel)
    x, y = checks.same_space("real", real, "fake", fake)
    z = checks.same_space("real", real, "other", other)[1]
    samples = {"real": x, "fake": y, "other": z}
    checks.enough_samples(samples, least=LEAST)
    if is_readable(x, y, z):
        for name, sample in samples.items():
            checks.finite(name, sample)
    unequal = len(y) != len(z)
    near, far = (candidate(x, scores, kernel, tile_size=tile_size, with_moments=unequal) for scores in (y, z))
    if usage_warnings.is_first_call_from_place():
        warn_of_one_value("relative_mmd_test", [kernel], x, torch.cat([y, z]))
    return compare(near, far, dtype=x.dtype)


@torch.no_grad()
def candidate(
    real: Tensor, fake: Tensor, kernel: Kernel, *, tile_size: int | None = None, with_moments: bool = False
) -> Candidate:
    """Return the statistics of `fake` for tests against any other sample, given the same `real` samples.

    With these statistics, samples can be compared later without keeping their scores. Comparisons with samples of
    another size also need the moments, which take the same time again. The other arguments are those of
    :func:`relative_mmd_test`.
    """
    check_kernel(kernel)
    real, fake = checks.same_space("real", real, "fake", fake)
    checks.enough_samples({"real": real, "fake": fake}, least=LEAST)
    tile_size = checks.tile_size(tile_size)
    summands = kernel._summands()
    with full_precision(real.device):
        within = gram_statistics(summands, real, fake, None, tile_size)
        cross = gram_statistics(summands, real, real, fake, tile_size)
        third = moments(summands, real, fake, within, cross, tile_size) if with_moments else None
    return Candidate(within, cross, third)


def compare(fake: Candidate, other: Candidate, *, dtype: torch.dtype = torch.float64) -> RelativeTest:
    """Return the result of :func:`relative_mmd_test`, in `dtype`, for two candidates with the same real samples.

    Raises:
        ValueError: if the candidates differ in size and lack the moments.
    """
    m, sizes = len(fake.cross.rows), (len(fake.cross.columns), len(other.cross.columns))
    errors = [(each.cross, n) for each, n in zip((fake, other), sizes, strict=True)]
    pulls = fake.cross.rows - other.cross.rows
    linear = 4 / m * variance_of_effects(pulls, errors)
    interactions = torch.zeros_like(linear)
    for (within, cross, _), n in zip((fake, other), sizes, strict=True):
        linear = linear + 4 / n * variance_of_effects(within.rows - cross.columns, [(within, n - 2), (cross, m)])
        interactions = interactions + 2 / (n * (n - 1)) * within.interaction + 4 / (m * n) * cross.interaction
    variance = linear.clamp_min(0) + interactions
    difference = (fake.within.mean - 2 * fake.cross.mean) - (other.within.mean - 2 * other.cross.mean)
    statistic = torch.where(variance > 0, difference / variance.sqrt(), torch.nan)
    score = statistic
    if sizes[0] != sizes[1]:
        if fake.moments is None or other.moments is None:
            raise ValueError(
                f"fake, other: expected candidates with moments for sizes {sizes[0]} and {sizes[1]}, got at least one "
                "without (pass with_moments=True to `candidate`)"
            )
        kappa = skewness(pulls, (m, *sizes), (fake.moments, other.moments), variance)
        score = normal_score(statistic, kappa)
    # PyTorch's ndtr has no digits in the lower tail: it is zero from -6 on in float32.
    found = (difference, variance, statistic, torch.erfc(-score / 2**0.5) / 2)
    return RelativeTest(*(number.to(dtype) for number in found))
