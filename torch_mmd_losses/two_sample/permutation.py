"""Permutation two-sample test; all permutations are evaluated in a few matrix products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from torch_mmd_losses import checks, random_numbers, usage_warnings
from torch_mmd_losses.kernels import spectral_measure
from torch_mmd_losses.kernels.base import Kernel, check_kernel
from torch_mmd_losses.pairs.blind_kernels import EXAMINED, warn_of_one_value
from torch_mmd_losses.pairs.reach import is_readable
from torch_mmd_losses.pairs.tiles import tile_side
from torch_mmd_losses.precision import full_precision
from torch_mmd_losses.results import TwoSampleTest
from torch_mmd_losses.two_sample import feature_maps
from torch_mmd_losses.two_sample.default_kernels import collection, gaussians
from torch_mmd_losses.two_sample.feature_maps import FeatureMap
from torch_mmd_losses.two_sample.statistics import FUSE, MAX, PLAIN, evaluate, of_sums, threshold
from torch_mmd_losses.types import FEATURES, TEST_STATISTICS, Features, TestStatistic

MEDIAN_OF = 1000
"""Number of samples whose pairwise distances, half a million, the median is taken over."""

LARGE = 2000
"""Least number of samples for which a loop over divisions saves time."""

FEATURE_COUNT = 1000
"""Number of features of each kernel, if none is given."""

AT_ONCE = 2**22
"""Number of random numbers that are drawn at once for the permutations: 32 MB."""


@torch.no_grad()
def mmd_test(
    real: Tensor,
    fake: Tensor,
    kernel: Kernel | Sequence[Kernel] | None = None,
    *,
    statistic: TestStatistic = "max",
    features: Features | Callable[[Tensor], Tensor] | None = None,
    feature_count: int | None = None,
    permutations: int = 999,
    generator: torch.Generator | None = None,
    tile_size: int | None = None,
) -> TwoSampleTest:
    r"""Test whether two samples come from the same distribution, by permutations.

    With a kernel, the statistic is the value of :func:`mmd2` with `estimator="unbiased"`. By default, since the scale
    of a difference is not known, the statistic is the maximum over five Gaussian kernels. The value for each kernel is
    divided by its standard deviation :math:`\sigma_k` over all divisions of the pooled samples into :math:`m` and
    :math:`n` samples. The mean over these divisions is zero.

    .. math:: \max_k \frac{\widehat{\mathrm{MMD}}{}_k^2}{\sigma_k},
        \quad k(a, b) = \exp(-\lVert a - b \rVert^2 / c_k^2), \quad c_k = c / 8, c / 4, c / 2, c, 2 c.

    :math:`c` is the median distance between all samples, real and fake together, or between 1000 random samples if
    there are more. Distances of zero do not count. :math:`\sigma_k` is exact: it is computed from the Gram matrix, not
    estimated from the random divisions. A sequence of kernels replaces the five.

    With `statistic="fuse"` the statistic is that of MMD-FUSE, a soft maximum over all kernels. Kernels are weighted by
    the size of their values, not by the deviations of their estimates:

    .. math:: \log \frac{1}{r} \sum_k \exp\Bigl(\sqrt{l (l - 1)}\, \widehat{\mathrm{MMD}}{}_k^2 \Big/
        \sqrt{\textstyle\sum_{i \ne j} k(z_i, z_j)^2 / (l (l - 1))}\Bigr), \quad l = \min(m, n),

    for the pooled samples :math:`z`. Without kernels, these are ten Gaussian kernels with bandwidths
    :math:`h` in equal steps from half the 5 % quantile of the distances to twice the 95 % quantile, and ten Laplace
    kernels :math:`\exp(-\sqrt 2 \lVert a - b \rVert / h)`.

    Under the null hypothesis, all samples are drawn independently from the same distribution, so it does not matter
    which samples are called real. The statistic is therefore compared with the statistics of :math:`B` random
    divisions, which share :math:`c` and :math:`\sigma_k`:

    .. math:: p = \frac{1 + \#\{b : statistic_b \ge statistic\}}{B + 1}.

    The test that rejects for :math:`p \le \alpha` rejects a true null hypothesis with a probability of at most
    :math:`\alpha`. This holds for any number of samples, and for any kernel that was chosen without looking at which
    samples are real. For a continuous distribution and an integer :math:`\alpha (B + 1)`, the probability is exactly
    :math:`\alpha`, up to divisions that are drawn twice. Statistics that are equal up to rounding count as equal. The
    smallest p-value is :math:`1 / (B + 1)`.

    If a kernel is trained to tell real from fake samples, split the samples: train on one part and test on the other.

    Time is :math:`O(N^2 (d + B))` and memory is :math:`O(N (d + B))` for :math:`N = m + n`. All permutations share the
    kernel values of a tile, and one matrix product sums these values for all permutations. The five kernels share the
    distances. For many permutations, these products are computed in 8-bit integers or bfloat16, or in float32 where
    these are not faster. Statistics that are so close to the observed one that errors could matter are then recomputed
    in float64, so the p-value is that of a test in float64. This takes a second evaluation of the kernels and, on a
    GPU, synchronisations.

    With `features`, the kernel is :math:`k(a, b) = \langle \psi(a), \psi(b) \rangle` for :math:`M` features
    :math:`\psi`. The statistic is then :math:`\lVert \bar\psi(x) - \bar\psi(y) \rVert^2`, the squared distance between
    the mean features, without the products of a sample with itself. It is unbiased and equals the statistic with the
    kernel :math:`\langle \psi(a), \psi(b) \rangle`, so the test has the same level. Time is :math:`O(N M (B + M + d))`
    and memory is :math:`O(N (d + B))`. Nyström features approximate the kernel best near the samples; Fourier features
    do not depend on them. For both, the test approximates the test with the kernel, and its level is exact despite the
    error of the approximation.

    Args:
        real: scores `(m, d)` in any floating-point dtype; `(m,)` and `(m, ...)` are flattened from dim 1.
        fake: scores `(n, d)`, likewise.
        kernel: any kernel, or a list or tuple of kernels. The bounds of an :class:`RBFBKernel` are ignored. None stands
            for the default kernels of the statistic.
        statistic: the way to combine several kernels, "max" or "fuse". With "max", the estimate of a single kernel that
            is not in a sequence is not divided by its deviation.
        features: "nystrom" for features from the kernel values with random samples of both groups, "fourier" for
            cosines and sines at random frequencies of the kernel, for the kernels of :func:`mmd2_fourier` without
            :class:`LinearKernel`, or a function that maps scores `(n, d)` to features `(n, M)`. The function is called
            with parts of the pooled samples, so the features of a sample may depend on that sample only. It must be
            chosen without looking at which samples are real. None computes all kernel values.
        feature_count: number of features of each kernel, :math:`M >= 2`, with "nystrom" or "fourier"; an even number
            for "fourier", at most the number of samples for "nystrom". None means 1000, or the number of samples.
        permutations: number of permutations, :math:`B`. The default of 999 suffices for levels of 0.05 and 0.01.
        generator: source of the random numbers. None is PyTorch's default generator for the device of the scores; a
            generator on the CPU gives the same numbers on every device.
        tile_size: side length of the tiles used for large batches, >= 1. None picks a default for the device; smaller
            tiles need less memory. Not with `features`, which need no tiles.

    Returns:
        Statistic and p-value, scalars without a gradient. The statistic is float64 for float64 scores and float32 for
        all others; the p-value is float64 (float32 on MPS).

    Raises:
        TypeError: if scores are not tensors, `kernel` is not a :class:`Kernel` or a sequence of them, `features` is of
            another type, a kernel has no known spectral measure for "fourier", `permutations`, `tile_size` or
            `feature_count` is not an integer, or `generator` is not a :class:`torch.Generator`.
        ValueError: if scores are empty, not floating-point, or fewer than two; if they differ in dimension, dtype or
            device; if they are on the meta device and their values are needed; if scores or features are NaN or
            infinite; if `permutations` or `tile_size` is below 1; if `statistic` is unknown; if `kernel`,
            `feature_count` or `tile_size` contradicts `features`; if features have the wrong shape, or a kernel is not
            positive definite with "nystrom".

    Warns:
        UsageWarning: if all values of the given kernels are zero, or all are :math:`k(a, a)`, as in :func:`mmd2`. Only
            the first call from each place in the code is examined.

    Example:
        >>> real, fake = torch.randn(100, 2), torch.randn(80, 2) + 0.7
        >>> mmd_test(real, fake, generator=torch.Generator().manual_seed(0)).p_value
        tensor(0.0010, dtype=torch.float64)

        >>> real, fake = torch.randn(20_000, 2), 1.05 * torch.randn(20_000, 2)
        >>> options = {"features": "fourier", "feature_count": 100}
        >>> mmd_test(real, fake, permutations=99, **options).p_value
        tensor(0.0100, dtype=torch.float64)

    References:
        Gretton et al. (2012), Section 5; Phipson and Smyth (2010) for the p-value; Schrab et al. (2023) for tests with
        several kernels at once; Biggs et al. (2023) for "fuse"; Chatalic et al. (2025) for tests with Nyström features;
        Székely and Rizzo (2014) for :math:`\tilde K`, the centred Gram matrix that gives :math:`\sigma_k` (see the
        :doc:`theory page </theory>`).
    """
    kernels = _checked_kernels(kernel)
    checks.one_of("statistic", statistic, TEST_STATISTICS)
    _checked_features(features, feature_count, kernels)
    count = checks.whole_number("permutations", permutations, least=1)
    checks.random_generator(generator)
    tile_size = checks.tile_size(tile_size)
    if features is not None and tile_size is not None:
        raise ValueError(f"tile_size: expected None with features, which need no tiles, got {tile_size}")
    real, fake = checks.same_space("real", real, "fake", fake)
    m, n = real.shape[0], fake.shape[0]
    checks.enough_samples({"real": real, "fake": fake}, least=2)
    if kernels is not None and usage_warnings.is_first_call_from_place():
        examined = None if features is None else EXAMINED
        warn_of_one_value("mmd_test", kernels, real[:examined], fake[:examined])
    by_default = kernels is None and not callable(features)
    if by_default:
        checks.with_values({"real": real, "fake": fake}, "from which the bandwidths are computed if kernel is None")
    if features is not None:
        checks.with_values({"real": real, "fake": fake}, "from which features are computed")
    if is_readable(real, fake):
        checks.finite("real", real)
        checks.finite("fake", fake)
    device = real.device
    # In a random order, neither rounding nor the samples for the median depend on which samples are real.
    place = _random_device(generator, device)
    order = random_numbers.uniform((m + n,), torch.float64, place, generator).argsort()
    pooled = torch.cat([real, fake])[order.to(device)]
    if by_default:
        # Scaling by a power of two is exact. Afterwards no distance is too large or too small to be squared.
        pooled = torch.ldexp(pooled, -torch.frexp(pooled.abs().amax()).exponent)
    labels = torch.cat([(order < m).unsqueeze(0), _divisions(m, n, count, generator, device)]).to(device)
    with full_precision(device):
        if kernels is None and by_default:
            kernels = (gaussians if statistic == "max" else collection)(pooled[:MEDIAN_OF])
        rule = FUSE if statistic == "fuse" else PLAIN if callable(features) or isinstance(kernel, Kernel) else MAX
        if features is None:
            found = evaluate(kernels or [], pooled, labels, m, tile_side(tile_size, device), rule)
        else:
            maps = _feature_maps(features, feature_count, kernels, pooled, generator)
            found = of_sums(feature_maps.feature_sums(maps, pooled, labels), labels, m, pooled.dtype, rule)
    statistics = rule.combined(found.values)
    as_large = statistics >= threshold(found, rule)
    # No statistic compares as >= NaN, so without this check kernel values that overflow, and scores that the host must
    # not read, would give the smallest p-value.
    p_value = torch.where(statistics.isfinite().all(), as_large.to(statistics.dtype).mean(), torch.nan)
    return TwoSampleTest(statistics[0].to(real.dtype), p_value)


def _checked_kernels(kernel: object) -> list[Kernel] | None:
    """Return the kernels of a test, or None for the default kernels."""
    if kernel is None or not isinstance(kernel, (list, tuple)):
        if kernel is not None:
            check_kernel(kernel)
        return None if kernel is None else [cast(Kernel, kernel)]
    for i, each in enumerate(kernel):
        if not isinstance(each, Kernel):
            raise TypeError(
                f"kernel[{i}]: expected a Kernel such as RBFKernel(sigma=1.0), got {checks.described(each)}"
            )
    if not kernel:
        raise ValueError("kernel: expected at least one Kernel, got an empty sequence")
    return list(kernel)


def _checked_features(features: object, feature_count: object, kernels: Sequence[Kernel] | None) -> None:
    """Raise if the options on features are wrong or contradict each other."""
    is_function = callable(features) and not isinstance(features, Kernel)
    if features is None or is_function:
        if feature_count is not None:
            raise ValueError(
                "feature_count: expected None unless features is 'nystrom' or 'fourier', got "
                f"{checks.described(feature_count)}"
            )
        if is_function and kernels is not None:
            raise ValueError(
                "kernel: expected None with a function as features, whose inner products are the kernel, got "
                f"{checks.described(kernels[0] if len(kernels) == 1 else kernels)}"
            )
        return
    if not isinstance(features, str):
        raise TypeError(
            f"features: expected 'nystrom', 'fourier' or a function of scores, got {checks.described(features)}"
        )
    checks.one_of("features", features, FEATURES)
    if feature_count is not None:
        number = checks.whole_number("feature_count", feature_count, least=2)
        if features == "fourier" and number % 2:
            raise ValueError(
                f"feature_count: expected an even number, a cosine and a sine for each frequency, got {number}"
            )
    if features == "fourier":
        for summand in (summand for kernel in kernels or [] for summand in kernel._summands()):
            if not spectral_measure.is_known(summand):
                raise TypeError(
                    "kernel: expected kernels with a known spectral measure for features='fourier', see mmd2_fourier, "
                    f"got {type(summand.kernel).__name__}"
                )


def _feature_maps(
    features: str | FeatureMap,
    feature_count: int | None,
    kernels: Sequence[Kernel] | None,
    pooled: Tensor,
    generator: torch.Generator | None,
) -> list[FeatureMap]:
    """Return the map for each kernel, or the map given by the user."""
    if not isinstance(features, str):
        return [feature_maps.checked(features)]
    if features == "fourier":
        count = feature_count or FEATURE_COUNT
        return [feature_maps.fourier(kernel, count, pooled, generator) for kernel in kernels or []]
    # The order of the pooled samples is random, so the landmarks do not depend on which samples are real.
    count = feature_count or min(FEATURE_COUNT, len(pooled))
    if count > len(pooled):
        raise ValueError(f"feature_count: expected at most {len(pooled)}, the number of samples, got {count}")
    return [feature_maps.nystrom(kernel, pooled[:count]) for kernel in kernels or []]


def _random_device(generator: torch.Generator | None, device: torch.device) -> torch.device:
    if generator is not None:
        return generator.device
    return torch.device("cpu") if device.type == "mps" else device  # MPS has no float64


def _divisions(m: int, n: int, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Return random divisions as masks `(count, m + n)` of the samples that are called real, `m` in each division."""
    masks = torch.empty(count, m + n, dtype=torch.bool, device=_random_device(generator, device))
    for piece in masks.split(max(1, AT_ONCE // (m + n))):
        keys = random_numbers.uniform(piece.shape, torch.float64, masks.device, generator)
        piece.copy_(keys <= _mth_smallest(keys, m))
    return masks


def _mth_smallest(keys: Tensor, m: int) -> Tensor:
    """Return the `m`-th smallest number of each row `(..., N)` of uniform random numbers, `(..., 1)`."""
    size = keys.shape[1]
    if not keys.is_cpu or type(keys) is not Tensor or size < LARGE:  # fake tensors have no numbers
        return keys.kthvalue(m, dim=1, keepdim=True).values
    # In a long row, a search among the numbers near its expectation takes a fifth of the time.
    expected = m / (size + 1)
    width = 8 * (expected * (1 - expected) / (size + 2)) ** 0.5
    found = torch.empty(len(keys), 1, dtype=keys.dtype)
    for i, row in enumerate(keys.numpy()):
        below = row < expected - width
        near = row[(row <= expected + width) & ~below]
        rank = m - 1 - np.count_nonzero(below)
        found[i] = np.partition(near, rank)[rank] if 0 <= rank < len(near) else np.partition(row, m - 1)[m - 1]
    return found
