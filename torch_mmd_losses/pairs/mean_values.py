"""Mean kernel values and the share of saturated pairs, tile by tile."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_mmd_losses.distances import Sample, total_dtype
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.pairs.batch import Scope
from torch_mmd_losses.pairs.tiled import side_of_tiles, tiles
from torch_mmd_losses.types import GROUPS, Bounds, Estimator


def terms(
    kernel: Kernel,
    real: Tensor,
    fake: Tensor,
    estimator: Estimator,
    *,
    bounds: Bounds,
    tile_size: int | None,
    scope: Scope,
) -> Sequence[Tensor]:
    """Return the mean kernel values of real, cross and fake pairs and the share of pairs that are saturated."""
    size = side_of_tiles(tile_size, real.device)
    sets = scope.samples(real, fake)
    totals = torch.zeros(len(GROUPS) + 1, dtype=total_dtype(real.device), device=real.device)
    counts = {}
    leaves = kernel._leaves()
    for part in scope.parts(sets, estimator):
        place = GROUPS.index(part.group)
        counts[part.group] = part.pairs
        whole = part.pairs_of(Sample(part.block.a), Sample(part.block.b))
        for leaf in leaves:
            if leaf.kernel._closed_form:
                totals[place].add_(leaf.kernel._total(whole), alpha=leaf.factor * part.value)
        for rows, columns in tiles(part.block, size) if part.value else ():
            a = Sample(part.block.a[rows])
            once = part.block.symmetric and rows == columns
            pairs = part.pairs_of(a, a if once else Sample(part.block.b[columns]), rows.start, columns.start)
            times = 2 if part.block.symmetric and not once else 1  # for the tile below the diagonal
            for leaf in leaves:
                if not leaf.kernel._closed_form:
                    totals[place].add_(leaf.kernel._total(pairs), alpha=leaf.factor * times)
            saturated = kernel._saturated(pairs, bounds).to(real.dtype)
            totals[-1].add_(pairs.total(saturated), alpha=times)
    numbers = [*(counts[group] for group in GROUPS), sum(counts.values())]
    return [(total / number).to(real.dtype) for total, number in zip(scope.totals(totals), numbers, strict=True)]
