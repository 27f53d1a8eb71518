"""The two-sample test: are two samples of one distribution? By permutations, all of them in a few matrix products."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses import _checks
from torch_mmd_losses._kernel import Kernel
from torch_mmd_losses._pairs import Pairs, Sample, total_dtype
from torch_mmd_losses._tiles import Block, side_of_tiles, tiles
from torch_mmd_losses.functional import check_kernel
from torch_mmd_losses.kernels import RBFKernel

MEDIAN_OF = 1000
"""Samples whose distances the median is taken of: half a million of them."""

AT_ONCE = 2**22
"""Random numbers of one piece of the drawing of permutations: 32 MB."""


class TwoSampleTest(NamedTuple):
    """What a two-sample test finds, scalars."""

    statistic: Tensor
    """Unbiased estimate of MMD^2."""
    p_value: Tensor
    """Probability of a statistic as large as this if both samples are of one distribution, > 0 and at most 1."""


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

    The statistic is that of :func:`mmd2` with `estimator="unbiased"`. Under the null hypothesis, that all samples are
    drawn independently from one distribution, it does not matter which of them are called real. So the statistic is
    compared with those of :math:`B` random divisions of all samples into :math:`m` and :math:`n`:

    .. math:: p = \frac{1 + \#\{b : statistic_b \ge statistic\}}{B + 1}.

    The test that rejects for :math:`p \le \alpha` errs with a probability of at most :math:`\alpha`, for any number of
    samples and any kernel that was not chosen by looking at which samples are real; with a continuous distribution and
    :math:`\alpha (B + 1)` a whole number it is exactly :math:`\alpha`, up to divisions that are drawn twice. Statistics
    that are equal up to rounding count as equal. The smallest p-value is :math:`1 / (B + 1)`.

    A kernel that is trained to tell real from fake has to be trained on other samples than those of the test: divide
    them.

    Time is :math:`O(N^2 (d + B))` for :math:`N = m + n`, memory :math:`O(N (d + B))`: all permutations share the kernel
    values of a tile, and one matrix product sums them up for all.

    Args:
        real: scores `(m, d)` in any floating-point dtype; `(m,)` and `(m, ...)` are flattened from dim 1.
        fake: scores `(n, d)`, likewise.
        kernel: any kernel; a bounded one is taken without its bounds. None is the Gaussian
            :math:`\exp(-\lVert a - b \rVert^2 / c^2)` with the median distance :math:`c` of all samples together, real
            and fake, or of 1000 random ones if there are more. Distances of zero do not count in the median.
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
        Gretton et al. (2012), Section 5; Phipson and Smyth (2010) for the p-value.
    """
    if kernel is not None:
        check_kernel(kernel)
    count = _checks.whole_number("permutations", permutations, least=1)
    _checks.random_generator(generator)
    if tile_size is not None:
        tile_size = _checks.whole_number("tile_size", tile_size, least=1)
    real, fake = _checks.same_space("real", real, "fake", fake)
    m, n = real.shape[0], fake.shape[0]
    _checks.enough_samples({"real": real, "fake": fake}, least=2)
    device = real.device
    # In a random order, what rounding or a part of the samples has to do with places has nothing to do with labels.
    order = torch.rand(m + n, dtype=torch.float64, generator=generator, device=_device(generator, device)).argsort()
    pooled = torch.cat([real, fake])[order.to(device)]
    labels = torch.cat([(order < m).unsqueeze(0), _divisions(m, n, count, generator, device)]).to(device)
    with _checks.full_precision(device):
        chosen = RBFKernel(_bandwidth(pooled[:MEDIAN_OF])) if kernel is None else kernel
        statistics, rounding = _statistics(chosen, pooled, labels, m, side_of_tiles(tile_size, device))
    as_large = statistics >= statistics[0] - rounding
    return TwoSampleTest(statistics[0].to(real.dtype), as_large.to(statistics.dtype).mean())


def _device(generator: torch.Generator | None, device: torch.device) -> torch.device:
    return device if generator is None else generator.device


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
    apart = distances[distances > 0]
    return float(apart.median()) / 2**0.5 if apart.numel() else 1.0


def _statistics(kernel: Kernel, pooled: Tensor, labels: Tensor, m: int, size: int) -> tuple[Tensor, Tensor]:
    """Return MMD^2 for each row of labels `(B + 1, m + n)`, and how much of it may be rounding.

    With the indicator `w` of the real samples and the Gram matrix `K` without its diagonal, the sums of kernel values
    of the three groups are `w K w`, `w K 1 - w K w` and `1 K 1 - 2 w K 1 + w K w`.
    """
    dtype, total = total_dtype(pooled.device), len(pooled)
    n = total - m
    within, rows = (pooled.new_zeros(length, dtype=dtype) for length in (len(labels), total))
    block = Block(pooled, pooled, 0, distinct=True, same=True, symmetric=True)
    for own, other in tiles(block, size):
        same = own == other
        pairs = Pairs(Sample(pooled[own]), Sample(pooled[other]), "cross", distinct=same, same=same)
        gram = kernel._gram(pairs).to(dtype)
        if same:
            gram.fill_diagonal_(0)
        left, right = labels[:, own].to(dtype), labels[:, other].to(dtype)
        within.add_((left @ gram).mul_(right).sum(1), alpha=1 if same else 2)
        rows[own].add_(gram.sum(1))
        if not same:
            rows[other].add_(gram.sum(0))
    parts = zip(labels.split(size, 1), rows.split(size), strict=True)
    with_all = torch.stack([part.to(dtype) @ sums for part, sums in parts]).sum(0)
    everything = rows.sum()
    real = within / (m * (m - 1))
    cross = (with_all - within) / (m * n)
    fake = (everything - 2 * with_all + within) / (n * (n - 1))
    scale = real.abs().max() + 2 * cross.abs().max() + fake.abs().max()
    return real - 2 * cross + fake, scale * _rounding(pooled.dtype, dtype, total)


def _rounding(scores: torch.dtype, totals: torch.dtype, samples: int) -> float:
    # Errors of kernel values are independent of each other, so that those of a mean over pairs fall with the samples.
    return 64 * max(torch.finfo(totals).eps, torch.finfo(scores).eps / samples)
