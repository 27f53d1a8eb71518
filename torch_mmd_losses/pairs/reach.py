"""Whether a kernel distinguishes the scores of a batch at all.

This is examined in the first calls only, because the host has to read the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TypeGuard

import torch
from torch import Tensor

from torch_mmd_losses import hand_written_gradients
from torch_mmd_losses.distances import Pairs, Sample
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.summands import RadialSummand, Summand, worst_conditioning
from torch_mmd_losses.pairs.batch import LOCAL
from torch_mmd_losses.pairs.terms import mean_values
from torch_mmd_losses.pairs.tiles import Block, tile_side, tiles
from torch_mmd_losses.precision import full_precision, total_dtype

OFTEN = 0.01
"""Share of pairs at the peak, all others being zero, from which a kernel counts as a test for equality."""

ROUNDING = 16
"""Values within this many units in the last place of zero or of the peak count as equal to them."""


def is_readable(*scores: Tensor) -> bool:
    """Return whether the host may read numbers that are computed from these scores.

    It may not under the compiler, in function transforms, while operations are counted or captured in a CUDA graph, and
    where the user has asked PyTorch to report synchronisations.
    """
    return (
        hand_written_gradients.reverse_mode_only(*scores)
        and not scores[0].is_meta
        and not torch._C._len_torch_dispatch_stack()
        and not (scores[0].is_cuda and (torch.cuda.get_sync_debug_mode() or torch.cuda.is_current_stream_capturing()))
    )


@torch.no_grad()
def has_no_gradient(kernel: Kernel, real: Tensor, fake: Tensor) -> bool:
    """Return whether scores differ, but all pairs of different scores have a gradient of exactly zero.

    The bounds of an :class:`RBFBKernel` are ignored, because a loss at its bounds has reached its goal.
    """
    stack, summands = torch.cat([real, fake]), kernel._summands()
    if not _are_radial(summands):
        return False
    for sq_dist, _ in _tiles(summands, stack):
        slopes = [summand.profile.value_and_slope(sq_dist.clone()) for summand in summands]
        # In the dtype of the scores, as gradients are. Slopes alone may not fit into it.
        gradients = [(slope * rate * sq_dist.sqrt()).to(stack.dtype) for _, slope, rate in slopes]
        if any([bool(gradient.any()) for gradient in gradients]):  # noqa: C419 (faster)
            return False
    return _differ(stack)


@torch.no_grad()
def has_one_value(kernel: Kernel, real: Tensor, fake: Tensor, *, smallest: float | None = None) -> bool:
    """Return whether scores differ, but all kernel values of pairs are zero, or all are at the peak.

    Values up to `smallest`, in units of the peak, count as zero. None stands for the rounding error of the peak. With a
    number below zero, the result is whether all values are at the peak.

    A few values at the peak among zeros are samples that were drawn twice. If there are many, scores are often equal,
    like classes, and the kernel is meant to test for equality only.
    """
    stack, summands = torch.cat([real, fake]), kernel._summands()
    if not _are_radial(summands):
        return False
    tolerance = ROUNDING * torch.finfo(stack.dtype).eps
    at_peak = total = 0
    for sq_dist, others in _tiles(summands, stack):
        zero = peak = torch.ones_like(sq_dist, dtype=torch.bool) if others is None else others
        pairs = int(zero.sum())
        for summand in summands:
            relative = _relative(summand, sq_dist)
            zero = zero & (relative.to(stack.dtype).abs() <= (tolerance if smallest is None else smallest))
            peak = peak & ((1 - relative).abs() <= tolerance)
        found, times = int(peak.sum()), 2 if others is None else 1
        if found + int(zero.sum()) < pairs:
            return False
        at_peak, total = at_peak + times * found, total + times * pairs
    return (at_peak == total or at_peak < OFTEN * total) and _differ(stack)


@torch.no_grad()
def saturated_share(kernel: Kernel, real: Tensor, fake: Tensor) -> float:
    """Return the share of saturated pairs, without bounds. It is zero if no scores differ.

    Kernels that are not functions of the distance reach everywhere, so their share is zero, too.
    """
    if not _are_radial(kernel._summands()) or not _differ(torch.cat([real, fake])):
        return 0.0
    with full_precision(real.device):
        means = mean_values(kernel, real, fake, "unbiased", bounds="none", tile_size=None, batch=LOCAL)
    return float(means[-1])


@torch.no_grad()
def explanation(kernel: Kernel, real: Tensor, fake: Tensor, *, of_discriminator: bool) -> str:
    """Return an explanation of why the kernel does not distinguish the scores, and the remedy.

    Args:
        kernel: the kernel.
        real: scores `(m, d)`.
        fake: scores `(n, d)`.
        of_discriminator: whether the scores are those of a discriminator, whose weights may be normalised.
    """
    stack, summands = torch.cat([real, fake]), kernel._summands()
    wide = stack.to(total_dtype(stack.device))
    mean = 2 * (wide - wide.mean(0)).square().sum() / (len(stack) - 1)
    radial = [summand for summand in summands if isinstance(summand, RadialSummand)]
    far = all(
        float(_relative(summand, (mean if summand.profile.by_hand else mean.to(stack.dtype)).view(1, 1))) < 0.5
        for summand in radial
    )
    names = " + ".join(dict.fromkeys(repr(summand.kernel) for summand in summands))
    scale = f", or a {'smaller' if far else 'larger'} scale= of conv_spectral_norm" if of_discriminator else ""
    return (
        f"the scores are too {'far apart' if far else 'close together'} for the kernel. The mean squared distance of "
        f"the scores is {float(mean):.4g}, and the kernel is {names}. Choose its bandwidth (sigma, scale, "
        f"length or c) near the median distance of the scores, torch_mmd_losses.median_distance(scores){scale}"
    )


def _tiles(summands: Sequence[RadialSummand], stack: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield squared distances tile by tile, and for tiles on the diagonal a mask of the pairs of two scores."""
    block = Block(stack, stack, 0, distinct=True, same=True, symmetric=True)
    for rows, columns in tiles(block, tile_side(None, stack.device)):
        a = Sample(stack[rows])
        on_diagonal = rows == columns
        pairs = Pairs(a, a if on_diagonal else Sample(stack[columns]), distinct=on_diagonal, same=on_diagonal)
        with full_precision(stack.device):
            sq_dist = pairs.sq_dist(
                partial(worst_conditioning, summands), by_hand=all(summand.profile.by_hand for summand in summands)
            )
        others = ~torch.eye(len(sq_dist), dtype=torch.bool, device=stack.device) if on_diagonal else None
        yield sq_dist, others


def _are_radial(summands: Sequence[Summand]) -> TypeGuard[Sequence[RadialSummand]]:
    """Return whether all summands are kernels of the distance. Others, such as a linear kernel, reach everywhere."""
    return all(isinstance(summand, RadialSummand) for summand in summands)


def _relative(summand: RadialSummand, sq_dist: Tensor) -> Tensor:
    """Return kernel values relative to the value at distance zero; not finite where that is zero."""
    value = summand.profile.value
    return value(sq_dist) / value(torch.zeros_like(sq_dist))


def _differ(stack: Tensor) -> bool:
    return bool((stack != stack[0]).any())
