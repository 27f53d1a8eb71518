"""A bandwidth for kernels of the distance, from the samples."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_mmd_losses import checks

LEAST, MOST = 1e-150, 1e150
"""Distances whose squares float64 represents with full precision."""


@torch.no_grad()
def median_distance(
    samples: Tensor,
    other: Tensor | None = None,
    *,
    max_samples: int = 2000,
    generator: torch.Generator | None = None,
) -> float:
    r"""Return the median distance between samples, a bandwidth for fixed features.

    .. math:: \sqrt{\operatorname{median}_{i < j} \lVert z_i - z_j \rVert^2}

    :math:`z` are the samples of both arguments together, so pairs within `samples`, pairs within `other` and pairs
    across both count equally. No sample is paired with itself. For an even number of pairs, the median is the lower of
    the two middle values, as in :func:`torch.median`. It is then the distance of a pair, and the median of the
    distances is the root of the median of their squares.

    Compute the bandwidth once for features that do not change. A bandwidth that is computed for each batch makes
    MMD^2 independent of the size of the scores. That is right for features that a second loss keeps from shrinking, as
    in domain adaptation. It is wrong for the discriminator of a GAN.

    The host reads the number, so the call waits for a GPU and breaks a graph of `torch.compile`. In a distributed run,
    compute it in one process and send it to the others, because their samples have different medians.

    The distances are computed from differences in float64, so they are precise far from the origin as well. Time is
    :math:`O(n^2 d)` and memory is :math:`O(n^2 + n d)` for :math:`n` samples, at most `max_samples`.

    Args:
        samples: scores or features `(m, d)` in any floating-point dtype; `(m,)` and `(m, ...)` are flattened from
            dim 1.
        other: an optional second sample `(n, d)`, likewise.
        max_samples: largest number of samples that are compared, >= 2. If there are more in both arguments together,
            this many of them are drawn at random without replacement, each with the same probability.
        generator: source of the random numbers, used only if there are more than `max_samples`. None is PyTorch's
            default generator for the device of the samples; a generator on the CPU gives the same choice on every
            device.

    Returns:
        A positive number in the units of the samples. It is a constant to autograd.

    Raises:
        TypeError: if samples are not tensors, `max_samples` is not an integer, or `generator` is not a
            :class:`torch.Generator`.
        ValueError: if samples are empty, not floating-point, not finite, without values (on the meta device), or fewer
            than two; if they differ in dimension, dtype or device; if `max_samples` is below 2; if the median is not
            between 1e-150 and 1e150. The median is zero if at least half of the pairs coincide; a kernel cannot have a
            bandwidth of zero.

    Example:
        >>> real, fake = torch.randn(100, 16), torch.randn(80, 16) + 1
        >>> sigma = median_distance(real, fake)
        >>> sigma
        6.0432...
        >>> kernel = RBFMix(sigmas=[sigma * factor for factor in (0.25, 0.5, 1, 2, 4)])

    References:
        Gretton et al. (2012), Section 8, who take the median over both samples together; Garreau et al. (2018).
    """
    most = checks.whole_number("max_samples", max_samples, least=2)
    checks.random_generator(generator)
    given = {"samples": samples} if other is None else {"samples": samples, "other": other}
    if other is None:
        parts = [checks.scores("samples", samples)]
    else:
        parts = list(checks.same_space("samples", samples, "other", other))
    for name, part in zip(given, parts, strict=True):
        # All rows are checked, not only the chosen ones, so that no error depends on the random choice.
        checks.finite(name, part)
    chosen = _chosen(parts, most, generator)
    if len(chosen) < 2:
        raise ValueError(f"samples: expected at least 2 samples, got {len(chosen)}")
    # MPS has no float64.
    distances = torch.pdist(chosen.to("cpu" if chosen.device.type == "mps" else chosen.device, torch.float64))
    median = float(distances.median())
    if not LEAST <= median <= MOST:
        close = f"; {int((distances < LEAST).sum())} of {len(distances)} pairs of samples coincide or are closer"
        remedy = (
            "for flags, counts or other samples of few values, set a bandwidth by hand, or take a larger quantile, "
            "distance_quantiles(samples, q=(0.9,)); leave out rows that were repeated by mistake, by "
            "torch.unique(samples, dim=0)"
        )
        raise ValueError(
            f"{', '.join(given)}: expected a median distance from {LEAST} to {MOST}, got {median:g}"
            + (f"{close} ({remedy})" if median < LEAST else " (divide the samples by a number)")
        )
    return median


def _chosen(parts: list[Tensor], most: int, generator: torch.Generator | None) -> Tensor:
    """Return all samples of the parts, or `most` random ones if there are more."""
    total = sum(map(len, parts))
    if total <= most:
        return torch.cat(parts)
    device = parts[0].device
    indices = torch.randperm(total, generator=generator, device=generator.device if generator else device)[:most]
    kept, start = [], 0
    for part in parts:
        own = indices.to(device) - start
        kept.append(part[own[(own >= 0) & (own < len(part))]])
        start += len(part)
    return torch.cat(kept)
