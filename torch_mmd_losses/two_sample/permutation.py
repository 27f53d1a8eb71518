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
from torch_mmd_losses.pairs.blocks import Block, tile_side, tiles
from torch_mmd_losses.precision import full_precision, total_dtype
from torch_mmd_losses.results import TwoSampleTest

MEDIAN_OF = 1000
"""Samples whose distances the median is taken of: half a million of them."""

BANDWIDTHS = (0.125, 0.25, 0.5, 1.0, 2.0)
"""Those of the default kernels, in units of the median distance over the root of two."""

AT_ONCE = 2**22
"""Random numbers of one piece of the drawing of permutations: 32 MB."""


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
    r"""Test whether two samples are of one distribution, by permutations.

    With a kernel, the statistic is that of :func:`mmd2` with `estimator="unbiased"`. By default, since the scale of a
    difference is not known, it is the largest over five Gaussian kernels of that value in units of its standard
    deviation :math:`\sigma_k` over all divisions of the samples into :math:`m` and :math:`n`, where its mean is zero:

    .. math:: \max_k \frac{\widehat{\mathrm{MMD}}{}_k^2}{\sigma_k},
        \quad k(a, b) = \exp(-\lVert a - b \rVert^2 / c_k^2), \quad c_k = c / 8, c / 4, c / 2, c, 2 c.

    :math:`c` is the median distance of all samples together, real and fake, or of 1000 random ones if there are more;
    distances of zero do not count. :math:`\sigma_k` is the exact one, from the Gram matrix and not from those drawn.

    Under the null hypothesis, that all samples are drawn independently from one distribution, it does not matter which
    of them are called real. So the statistic is compared with those of :math:`B` random divisions, which share
    :math:`c` and :math:`\sigma_k`:

    .. math:: p = \frac{1 + \#\{b : statistic_b \ge statistic\}}{B + 1}.

    The test that rejects for :math:`p \le \alpha` errs with a probability of at most :math:`\alpha`, for any number of
    samples and any kernel that was not chosen by looking at which samples are real; with a continuous distribution and
    :math:`\alpha (B + 1)` a whole number it is exactly :math:`\alpha`, up to divisions that are drawn twice. Statistics
    that are equal up to rounding count as equal. The smallest p-value is :math:`1 / (B + 1)`.

    A kernel that is trained to tell real from fake has to be trained on other samples than those of the test: divide
    them.

    Time is :math:`O(N^2 (d + B))` for :math:`N = m + n`, memory :math:`O(N (d + B))`: all permutations share the kernel
    values of a tile, and one matrix product sums them up for all. The five kernels share the distances.

    Args:
        real: scores `(m, d)` in any floating-point dtype; `(m,)` and `(m, ...)` are flattened from dim 1.
        fake: scores `(n, d)`, likewise.
        kernel: any kernel; a bounded one is taken without its bounds. None stands for the five Gaussians.
        permutations: how many, :math:`B`. 999 are enough for levels of 0.05 and 0.01.
        generator: where permutations come from; None is PyTorch's default generator of the scores' device. One on the
            CPU gives the same permutations on every device.
        tile_size: rows and columns of the parts in which large samples are processed, >= 1. None chooses by the device.

    Returns:
        Statistic and p-value, scalars without a gradient. The statistic is float64 for float64 scores and float32 for
        all others; the p-value is float64 (float32 on MPS).

    Raises:
        TypeError: if scores are no tensors, `kernel` is no :class:`Kernel`, `permutations` or `tile_size` no integer,
            or `generator` no :class:`torch.Generator`.
        ValueError: if scores are empty, not floating-point or fewer than two; if they differ in dimension, dtype or
            device; if `permutations` or `tile_size` is below 1.

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
    device = real.device
    # In a random order, what rounding or a part of the samples has to do with places has nothing to do with labels.
    order = torch.rand(m + n, dtype=torch.float64, generator=generator, device=_device(generator, device)).argsort()
    pooled = torch.cat([real, fake])[order.to(device)]
    if kernel is None:
        # By a power of two, which is exact, so that no distance is too large or too small to be squared.
        pooled = torch.ldexp(pooled, -torch.frexp(pooled.abs().amax()).exponent)
    labels = torch.cat([(order < m).unsqueeze(0), _divisions(m, n, count, generator, device)]).to(device)
    with full_precision(device):
        kernels = _gaussians(_bandwidth(pooled[:MEDIAN_OF])) if kernel is None else [kernel]
        sums = _sums(kernels, pooled, labels, tile_side(tile_size, device))
    values, rounding = _mmd2(sums, m, pooled.dtype)
    if kernel is None:
        # Where kernel values do not tell pairs apart, all that would be divided is rounding.
        deviation = torch.maximum(_deviation(sums, m), rounding)
        values, rounding = values / deviation, rounding / deviation
    statistics = values.amax(0)
    as_large = statistics >= statistics[0] - rounding.max()
    # Nothing is as large as NaN, which would make the p-value of broken samples the smallest of all.
    p_value = torch.where(statistics.isfinite().all(), as_large.to(statistics.dtype).mean(), torch.nan)
    return TwoSampleTest(statistics[0].to(real.dtype), p_value)


def _device(generator: torch.Generator | None, device: torch.device) -> torch.device:
    if generator is not None:
        return generator.device
    return torch.device("cpu") if device.type == "mps" else device  # which has no float64


def _divisions(m: int, n: int, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Return which samples are called real `(count, m + n)` in random divisions, `m` of them in each."""
    pieces, at_once = [], max(1, AT_ONCE // (m + n))
    for start in range(0, count, at_once):
        size = min(at_once, count - start), m + n
        keys = torch.rand(size, dtype=torch.float64, generator=generator, device=_device(generator, device))
        pieces.append(keys <= keys.kthvalue(m, dim=1, keepdim=True).values)
    return torch.cat(pieces)


def _bandwidth(pooled: Tensor) -> float:
    """Return the median distance over the root of two; equal samples are at any distance in units of it."""
    distances = torch.pdist(pooled)
    apart = distances[(distances > 0) & distances.isfinite()]
    return float(apart.median()) / 2**0.5 if apart.numel() else 1.0


def _gaussians(sigma: float) -> list[Kernel]:
    return [RBFKernel(factor * sigma) for factor in BANDWIDTHS]


class _Sums(NamedTuple):
    """Sums of the values of `r` kernels, the Gram matrices `K` without their diagonals."""

    within: Tensor
    """`w K w` for the indicators `w` of the divisions `(r, B + 1)`."""
    with_all: Tensor
    """`w K 1` `(r, B + 1)`."""
    rows: Tensor
    """`K 1` `(r, N)`."""
    squares: Tensor
    """Sums of the squared entries `(r,)`."""


def _sums(kernels: Sequence[Kernel], pooled: Tensor, labels: Tensor, side: int) -> _Sums:
    """Return the sums for each row of labels `(B + 1, N)`; all kernels share the distances of a tile."""
    dtype = total_dtype(pooled.device)
    within, rows, squares = (
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
            within[i].add_((left @ gram).mul_(right).sum(1), alpha=1 if same else 2)
            squares[i].add_(gram.square().sum(), alpha=1 if same else 2)
            rows[i, own].add_(gram.sum(1))
            if not same:
                rows[i, other].add_(gram.sum(0))
    parts = zip(rows.split(side, 1), labels.split(side, 1), strict=True)
    with_all = torch.stack([sums @ part.to(dtype).T for sums, part in parts]).sum(0)
    return _Sums(within, with_all, rows, squares)


def _mmd2(sums: _Sums, m: int, scores: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return MMD^2 by each kernel for each division `(r, B + 1)`, and how much of it may be rounding `(r, 1)`.

    The sums of kernel values of the three groups are `w K w`, `w K 1 - w K w` and `1 K 1 - 2 w K 1 + w K w`.
    """
    within, with_all, rows, _ = sums
    total = rows.shape[1]
    n = total - m
    everything = rows.sum(1, keepdim=True)
    real = within / (m * (m - 1))
    cross = (with_all - within) / (m * n)
    fake = (everything - 2 * with_all + within) / (n * (n - 1))
    largest_real, largest_cross, largest_fake = (mean.abs().amax(1, keepdim=True) for mean in (real, cross, fake))
    scale = largest_real + 2 * largest_cross + largest_fake
    return real - 2 * cross + fake, scale * _rounding(scores, within.dtype, total)


def _deviation(sums: _Sums, m: int) -> Tensor:
    r"""Return the standard deviation of MMD^2 by each kernel over all divisions `(r, 1)`, not only those drawn.

    With the U-centred Gram matrix :math:`\tilde K`, of zero diagonal and rows of sum zero, it is the root of

    .. math:: \frac{2 (N - 1) (N - 2)}{N (N - 3)\, m (m - 1)\, n (n - 1)} \sum_{i \ne j} \tilde K_{ij}^2

    since MMD^2 is `(N - 1) (N - 2) / (m (m - 1) n (n - 1))` times the sum of :math:`\tilde K` over the real pairs.
    """
    total = sums.rows.shape[1]
    n = total - m
    everything = sums.rows.sum(1)
    centred = sums.squares - 2 / (total - 2) * sums.rows.square().sum(1) + everything**2 / ((total - 1) * (total - 2))
    factor = 2 * (total - 1) * (total - 2) / (total * (total - 3) * m * (m - 1) * n * (n - 1))
    return (factor * centred.clamp_min(0)).sqrt().unsqueeze(1)


def _rounding(scores: torch.dtype, totals: torch.dtype, samples: int) -> float:
    # Errors of kernel values are independent of each other, so that those of a mean over pairs fall with the samples.
    return 64 * max(torch.finfo(totals).eps, torch.finfo(scores).eps / samples)
