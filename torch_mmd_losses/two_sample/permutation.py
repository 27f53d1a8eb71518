"""Permutation two-sample test; all permutations are evaluated in a few matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.distances import Pairs, Sample
from torch_mmd_losses.kernels.base import Kernel, check_kernel
from torch_mmd_losses.kernels.radial import RBFKernel
from torch_mmd_losses.kernels.summands import sum_of_gram_matrices
from torch_mmd_losses.pairs.tiles import Block, tile_side, tiles
from torch_mmd_losses.precision import full_precision, total_dtype
from torch_mmd_losses.results import TwoSampleTest

MEDIAN_OF = 1000
"""Number of samples whose pairwise distances, half a million, the median is taken over."""

BANDWIDTHS = (0.125, 0.25, 0.5, 1.0, 2.0)
"""Bandwidths of the default kernels, in units of the median distance over the root of two."""

AT_ONCE = 2**22
"""Number of random numbers that are drawn at once for the permutations: 32 MB."""


@torch.no_grad()
def mmd_test(
    real: Tensor,
    fake: Tensor,
    kernel: Kernel | None = None,
    *,
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
    estimated from the random divisions.

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
    distances.

    Args:
        real: scores `(m, d)` in any floating-point dtype; `(m,)` and `(m, ...)` are flattened from dim 1.
        fake: scores `(n, d)`, likewise.
        kernel: any kernel. The bounds of an :class:`RBFBKernel` are ignored. None stands for the five Gaussian kernels.
        permutations: number of permutations, :math:`B`. 999 are enough for levels of 0.05 and 0.01.
        generator: source of the random numbers. None is PyTorch's default generator for the device of the scores; a
            generator on the CPU gives the same numbers on every device.
        tile_size: side length of the tiles used for large batches, >= 1. None picks a default for the device; smaller
            tiles need less memory.

    Returns:
        Statistic and p-value, scalars without a gradient. The statistic is float64 for float64 scores and float32 for
        all others; the p-value is float64 (float32 on MPS).

    Raises:
        TypeError: if scores are not tensors, `kernel` is not a :class:`Kernel`, `permutations` or `tile_size` is not an
            integer, or `generator` is not a :class:`torch.Generator`.
        ValueError: if scores are empty, not floating-point, or fewer than two; if they differ in dimension, dtype or
            device; if they are on the meta device and `kernel` is None; if `permutations` or `tile_size` is below 1.

    Example:
        >>> real, fake = torch.randn(100, 2), torch.randn(80, 2) + 0.7
        >>> mmd_test(real, fake, generator=torch.Generator().manual_seed(0)).p_value
        tensor(0.0010, dtype=torch.float64)

    References:
        Gretton et al. (2012), Section 5; Phipson and Smyth (2010) for the p-value; Schrab et al. (2023) and Biggs et
        al. (2023) for tests with several kernels at once; Székely and Rizzo (2014) for :math:`\tilde K`, the centred
        Gram matrix that :math:`\sigma_k` comes from (see the page on theory).
    """
    if kernel is not None:
        check_kernel(kernel)
    count = checks.whole_number("permutations", permutations, least=1)
    checks.random_generator(generator)
    tile_size = checks.tile_size(tile_size)
    real, fake = checks.same_space("real", real, "fake", fake)
    m, n = real.shape[0], fake.shape[0]
    checks.enough_samples({"real": real, "fake": fake}, least=2)
    if kernel is None:
        checks.with_values({"real": real, "fake": fake}, "from which the bandwidths are computed if kernel is None")
    device = real.device
    # In a random order, neither rounding nor the samples for the median depend on which samples are real.
    order = torch.rand(
        m + n, dtype=torch.float64, generator=generator, device=_random_device(generator, device)
    ).argsort()
    pooled = torch.cat([real, fake])[order.to(device)]
    if kernel is None:
        # Scaling by a power of two is exact. Afterwards no distance is too large or too small to be squared.
        pooled = torch.ldexp(pooled, -torch.frexp(pooled.abs().amax()).exponent)
    labels = torch.cat([(order < m).unsqueeze(0), _divisions(m, n, count, generator, device)]).to(device)
    with full_precision(device):
        kernels = _gaussians(_bandwidth(pooled[:MEDIAN_OF])) if kernel is None else [kernel]
        sums = _gram_sums(kernels, pooled, labels, tile_side(tile_size, device))
    values, rounding = _mmd2(sums, m, pooled.dtype)
    if kernel is None:
        # If all kernel values are nearly equal, the deviation is rounding error, so the divisor is at least `rounding`.
        deviation = torch.maximum(_deviation(sums, m), rounding)
        values, rounding = values / deviation, rounding / deviation
    statistics = values.amax(0)
    as_large = statistics >= statistics[0] - rounding.max()
    # No statistic compares as >= NaN, so without this check NaN in the samples would give the smallest p-value.
    p_value = torch.where(statistics.isfinite().all(), as_large.to(statistics.dtype).mean(), torch.nan)
    return TwoSampleTest(statistics[0].to(real.dtype), p_value)


def _random_device(generator: torch.Generator | None, device: torch.device) -> torch.device:
    if generator is not None:
        return generator.device
    return torch.device("cpu") if device.type == "mps" else device  # MPS has no float64


def _divisions(m: int, n: int, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Return random divisions as masks `(count, m + n)` of the samples that are called real, `m` in each division."""
    masks = torch.empty(count, m + n, dtype=torch.bool, device=_random_device(generator, device))
    for piece in masks.split(max(1, AT_ONCE // (m + n))):
        keys = torch.rand(piece.shape, dtype=torch.float64, generator=generator, device=masks.device)
        piece.copy_(keys <= keys.kthvalue(m, dim=1, keepdim=True).values)
    return masks


def _bandwidth(pooled: Tensor) -> float:
    """Return the median distance over the root of two, or 1 if all samples are equal and any bandwidth will do."""
    distances = torch.pdist(pooled)
    apart = distances[(distances > 0) & distances.isfinite()]
    return float(apart.median()) / 2**0.5 if apart.numel() else 1.0


def _gaussians(sigma: float) -> list[Kernel]:
    return [RBFKernel(factor * sigma) for factor in BANDWIDTHS]


class _GramSums(NamedTuple):
    """Sums over the Gram matrices `K` of `r` kernels, without their diagonals."""

    real_pairs: Tensor
    """Sums `w K w` over the pairs of two real samples, `(r, B + 1)`; `w` is the mask of the real samples."""
    pairs_with_real: Tensor
    """Sums `w K 1` over the pairs of a real sample and any sample, `(r, B + 1)`."""
    rows: Tensor
    """Sums `K 1` of the rows, `(r, N)`."""
    squares: Tensor
    """Sums of the squared entries, `(r,)`."""


def _gram_sums(kernels: Sequence[Kernel], pooled: Tensor, labels: Tensor, side: int) -> _GramSums:
    """Return the sums for each row of `labels` `(B + 1, N)`. All kernels share the distances of a tile."""
    dtype = total_dtype(pooled.device)
    real_pairs, rows, squares = (
        pooled.new_zeros((len(kernels), *shape), dtype=dtype) for shape in ((len(labels),), (len(pooled),), ())
    )
    summands = [kernel._summands() for kernel in kernels]
    block = Block(pooled, pooled, 0, distinct=True, same=True, symmetric=True)
    for own, other in tiles(block, side):
        same = own == other
        pairs = Pairs(Sample(pooled[own]), Sample(pooled[other]), distinct=same, same=same)
        left, right = labels[:, own].to(dtype), labels[:, other].to(dtype)
        for i, terms in enumerate(summands):
            gram = sum_of_gram_matrices(terms, pairs).to(dtype)
            if same:
                gram.fill_diagonal_(0)
            real_pairs[i].add_((left @ gram).mul_(right).sum(1), alpha=1 if same else 2)
            squares[i].add_(gram.square().sum(), alpha=1 if same else 2)
            rows[i, own].add_(gram.sum(1))
            if not same:
                rows[i, other].add_(gram.sum(0))
    parts = zip(rows.split(side, 1), labels.split(side, 1), strict=True)
    pairs_with_real = torch.stack([row_sums @ part.to(dtype).T for row_sums, part in parts]).sum(0)
    return _GramSums(real_pairs, pairs_with_real, rows, squares)


def _mmd2(sums: _GramSums, m: int, score_dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return MMD^2 `(r, B + 1)` for each kernel and division, and an estimate `(r, 1)` of its rounding error.

    The sums of kernel values of the three groups are `w K w`, `w K 1 - w K w` and `1 K 1 - 2 w K 1 + w K w`.
    """
    real_pairs, pairs_with_real, rows, _ = sums
    size = rows.shape[1]
    n = size - m
    all_pairs = rows.sum(1, keepdim=True)
    real = real_pairs / (m * (m - 1))
    cross = (pairs_with_real - real_pairs) / (m * n)
    fake = (all_pairs - 2 * pairs_with_real + real_pairs) / (n * (n - 1))
    largest_real, largest_cross, largest_fake = (mean.abs().amax(1, keepdim=True) for mean in (real, cross, fake))
    scale = largest_real + 2 * largest_cross + largest_fake
    return real - 2 * cross + fake, scale * _relative_rounding(score_dtype, rows.dtype, size)


def _deviation(sums: _GramSums, m: int) -> Tensor:
    r"""Return the standard deviation `(r, 1)` of MMD^2 for each kernel, over all divisions and not only those drawn.

    The U-centred Gram matrix :math:`\tilde K` has a zero diagonal, and each of its rows sums to zero. The standard
    deviation is the root of

    .. math:: \frac{2 (N - 1) (N - 2)}{N (N - 3)\, m (m - 1)\, n (n - 1)} \sum_{i \ne j} \tilde K_{ij}^2

    since MMD^2 is `(N - 1) (N - 2) / (m (m - 1) n (n - 1))` times the sum of :math:`\tilde K` over the real pairs.
    """
    size = sums.rows.shape[1]
    n = size - m
    all_pairs = sums.rows.sum(1)
    centred = sums.squares - 2 / (size - 2) * sums.rows.square().sum(1) + all_pairs**2 / ((size - 1) * (size - 2))
    factor = 2 * (size - 1) * (size - 2) / (size * (size - 3) * m * (m - 1) * n * (n - 1))
    return (factor * centred.clamp_min(0)).sqrt().unsqueeze(1)


def _relative_rounding(score_dtype: torch.dtype, sum_dtype: torch.dtype, size: int) -> float:
    # The errors of kernel values are independent, so the error of a mean over pairs falls with the number of samples.
    return 64 * max(torch.finfo(sum_dtype).eps, torch.finfo(score_dtype).eps / size)
