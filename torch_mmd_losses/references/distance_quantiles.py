"""Quantiles of the distances between samples, for the choice of bandwidths."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.kernels.bandwidth import LEAST, MOST
from torch_mmd_losses.references.batches import Rows, Samples, alike, in_batches
from torch_mmd_losses.references.subsample import choose, seeded


@torch.no_grad()
def distance_quantiles(
    samples: Samples,
    other: Samples | None = None,
    *,
    q: tuple[float, ...] = (0.05, 0.5, 0.95),
    grouped: bool = False,
    max_samples: int = 2000,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Return quantiles of the distances between samples, for several bandwidths, for streams and for groups.

    The quantiles are those of :math:`\lVert z_i - z_j \rVert` over all pairs :math:`i < j` of the samples of both
    arguments together. Each quantile is the distance of a pair: number :math:`\lfloor q (P - 1) \rfloor`, counted from
    zero, of :math:`P` sorted distances. With `q=(0.5,)` the result is that of :func:`median_distance`, whose advice on
    bandwidths applies here, too. Multiples of the result are bandwidths for narrower or wider kernels. Representation
    Distribution Matching uses a quarter of the median for images from text, and MMD-FUSE uses bandwidths from half the
    5 % quantile to twice the 95 % quantile.

    Args:
        samples: scores or features `(m, d)` in any floating-point dtype; `(m,)` and `(m, ...)` are flattened from
            dim 1. Or an iterable of such batches, which is read once. With `grouped`, a tensor `(*G, m, d)`.
        other: an optional second sample, likewise.
        q: numbers from 0 to 1.
        grouped: whether the leading dimensions are separate groups.
        max_samples: largest number of samples that are compared, per group if `grouped`. If there are more, this many
            of them are drawn at random without replacement, each with the same probability, for any order and sizes of
            the batches. All groups use the same indices.
        generator: source of the random choice. None is PyTorch's default generator.

    Returns:
        `(len(q),)`, or `(*G, len(q))` with `grouped`, in float64 on the device of the samples (on the CPU for MPS). It
        has no graph.

    Raises:
        TypeError: if samples are not tensors or iterables of them, `q` is not a sequence of numbers, `grouped` is not a
            bool, `max_samples` is not an integer, or `generator` is not a :class:`torch.Generator`.
        ValueError: if samples are empty, not floating-point, not finite, without values (on the meta device), or fewer
            than two; if they differ in dimension, dtype or device, or in their groups; if a number of `q` is not from 0
            to 1; if `max_samples` is below 2; if a quantile is not between 1e-150 and 1e150.

    Example:
        >>> features = torch.randn(1000, 16)
        >>> distance_quantiles(features.split(100))
        tensor([4.0051, 5.5582, 7.2980], dtype=torch.float64)
        >>> low, median, high = distance_quantiles(features).tolist()
        >>> kernel = RBFMix(sigmas=[low / 2, median, 2 * high])
        >>> distance_quantiles(features.view(4, 250, 16), q=(0.5,), grouped=True).shape
        torch.Size([4, 1])

    References:
        Biggs, Schrab and Gretton (2023), *MMD-FUSE*, whose ten bandwidths lie between such quantiles.
    """
    probabilities = _probabilities(q)
    most = checks.whole_number("max_samples", max_samples, least=2)
    checks.random_generator(generator)
    if checks.flag("grouped", grouped):
        groups, shape = _groups(samples, other)
        if groups.shape[1] > most:
            device = groups.device if generator is None else generator.device
            indices = torch.randperm(groups.shape[1], generator=generator, device=device)[:most]
            groups = groups[:, indices.to(groups.device)]
    else:
        choice = torch.Generator().manual_seed(seeded(generator))
        groups, shape = choose(_of_both(samples, other), most, choice).scores.unsqueeze(0), torch.Size()
    if groups.shape[1] < 2:
        raise ValueError(f"samples: expected at least 2 samples, got {groups.shape[1]}")
    # MPS has no float64.
    wide = groups.to("cpu" if groups.device.type == "mps" else groups.device, torch.float64)
    found = torch.stack([_quantiles(group, probabilities) for group in wide])
    if not bool(((found >= LEAST) & (found <= MOST)).all()):
        wrong = found.min() if bool((found < LEAST).any()) else found.max()
        raise ValueError(
            f"samples: expected quantiles of distances from {LEAST} to {MOST}, got {float(wrong):g} (leave out "
            "repeated samples, or ask for larger q, if it is zero)"
        )
    return found.view(*shape, len(probabilities))


def _probabilities(q: object) -> list[float]:
    if not isinstance(q, (tuple, list)) or not q:
        raise TypeError(f"q: expected a sequence of numbers from 0 to 1, got {checks.described(q)}")
    numbers = [checks.finite_number(f"q[{i}]", number) for i, number in enumerate(q)]
    for i, number in enumerate(numbers):
        if not 0 <= number <= 1:
            raise ValueError(f"q[{i}]: expected a number from 0 to 1, got {number}")
    return numbers


def _of_both(samples: Samples, other: Samples | None) -> Iterator[Rows]:
    """Yield the batches of both arguments."""
    own = in_batches("samples", samples, None)
    first = next(own)
    yield from chain([first], own)
    for rows in () if other is None else in_batches("other", other, None):
        alike("samples", first.scores, "other", rows.scores)
        yield rows


def _groups(samples: object, other: object) -> tuple[Tensor, torch.Size]:
    """Return the samples of both arguments as `(g, m, d)`, and the shape of the groups."""
    first = _checked_groups("samples", samples)
    parts = [first]
    if other is not None:
        second = _checked_groups("other", other)
        if first.shape[:-2] != second.shape[:-2]:
            raise ValueError(
                f"samples, other: expected the same groups, got {tuple(first.shape[:-2])} and "
                f"{tuple(second.shape[:-2])}"
            )
        alike("samples", first.flatten(0, -2), "other", second.flatten(0, -2))
        parts.append(second)
    together = torch.cat(parts, -2)
    return together.reshape(-1, *together.shape[-2:]), together.shape[:-2]


def _checked_groups(name: str, value: object) -> Tensor:
    tensor = checks.grouped_rows(name, value, condition=" for grouped=True")
    checks.finite(name, tensor.reshape(-1, tensor.shape[-1]))
    return tensor


def _quantiles(samples: Tensor, probabilities: list[float]) -> Tensor:
    distances = torch.pdist(samples).sort().values
    places = [int(number * (len(distances) - 1)) for number in probabilities]
    return distances[torch.tensor(places, device="cpu").to(distances.device)]
