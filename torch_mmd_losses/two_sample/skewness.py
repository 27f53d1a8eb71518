r"""The skewness of a studentised difference of two estimates of MMD^2.

The difference of the estimates for fake samples `y` and other samples `z` is, up to a constant, a sum of effects `g_i`
of single samples and of interactions `psi_ij` of pairs. An estimate that happens to be small also has a small estimated
variance. For samples of equal sizes the two estimates balance each other. For unequal sizes the studentised difference
`T` is skewed, to second order with

    P(T <= t) = Phi(t + kappa (t^2 + 1)),    kappa = sum_{i < j} E[g_i g_j psi_ij] / variance^(3/2)

if both candidates are equally far from the real samples (Helmers, 1991). The third moments of the effects, which belong
to the same order, are small in comparison and left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from torch_mmd_losses.estimators.gram_statistics import GramStatistics, weighted_sums
from torch_mmd_losses.kernels.summands import Summand


class Moments(NamedTuple):
    r"""Third moments of effects and interactions of fake samples `y` and real samples `x`.

    Attributes:
        within: mean of `beta(y) beta(y') k~(y, y')` over all pairs, a scalar, where `beta` are the effects and `k~` the
            interactions of :func:`mmd2_and_variance`.
        cross: mean of `beta(y) k(x, y)` over all `y`, for each `x`, `(m,)`.
    """

    within: Tensor
    cross: Tensor


def moments(
    summands: Sequence[Summand],
    real: Tensor,
    fake: Tensor,
    within: GramStatistics,
    cross: GramStatistics,
    tile_size: int | None,
) -> Moments:
    """Return the moments of a candidate, given its statistics. All kernel values are evaluated again."""
    n = len(fake)
    effects = within.rows - cross.columns
    effects = effects - effects.mean()
    sums = weighted_sums(summands, real, fake, None, effects, tile_size)
    # The effects sum to zero. Of the effects in the kernel values themselves, only those of equal pairs remain, which
    # the sums leave out.
    own = within.rows - within.rows.mean() * n / (2 * (n - 1))
    interactions = effects.dot(sums) + 2 * effects.square().dot(own)
    return Moments(interactions / n**2, weighted_sums(summands, real, real, fake, effects, tile_size) / n)


def skewness(
    pulls: Tensor, sizes: tuple[int, int, int], candidates: tuple[Moments, Moments], variance: Tensor
) -> Tensor:
    r"""Return :math:`\kappa`.

    The moments are averaged over both candidates, as if they were equal. An estimate of the moments from one candidate
    would depend on how near it happens to be, and the test would reject too often.

    Args:
        pulls: effects of the real samples on the estimate for `y` minus those on the estimate for `z`, `(m,)`.
        sizes: numbers of real, fake and other samples.
        candidates: moments of `y` and `z`.
        variance: variance of the difference.
    """
    m, n, p = sizes
    of_fake, of_other = candidates
    within = (of_fake.within + of_other.within) / 2
    cross = (pulls - pulls.mean()).dot(of_fake.cross - of_other.cross) / (2 * m)
    return (4 * (1 / n**2 - 1 / p**2) * within + 8 / m * (1 / n - 1 / p) * cross) / variance**1.5


def normal_score(statistic: Tensor, kappa: Tensor) -> Tensor:
    """Return a number that is normal if the statistic has the skewness `kappa`.

    A cubic polynomial that grows with the statistic everywhere agrees with the expansion above to second order (Hall,
    1992).
    """
    return statistic + kappa * (statistic.square() + 1) + kappa.square() * statistic**3 / 3
