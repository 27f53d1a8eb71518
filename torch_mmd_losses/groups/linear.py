"""MMD^2 of groups with a linear kernel, in closed form."""

from __future__ import annotations

from torch import Tensor

from torch_mmd_losses.groups.call import Tensors, parts, zeros
from torch_mmd_losses.precision import total_dtype
from torch_mmd_losses.types import Estimator


def values(tensors: Tensors, estimator: Estimator) -> Tensor:
    """Return the value of each group `(G,)`, in :func:`total_dtype`, differentiably."""
    # In float64 before anything is multiplied: if the scores have a large mean, products are far larger than MMD^2.
    samples = [scores.to(total_dtype(scores.device)) for scores in tensors.samples()]
    weighted = [
        scores if weights is None else scores * weights.unsqueeze(2)
        for scores, weights in zip(samples, tensors.weights(), strict=True)
    ]
    value = zeros(tensors)
    for a, b, distinct, factor in parts(tensors, estimator):
        total = (weighted[a].sum(1) * weighted[b].sum(1)).sum(1)
        if distinct:
            total = total - (weighted[a] * weighted[b]).sum((1, 2))
        within = tensors.within()[a] if a == b else None
        value = value + factor * (total if within is None else within * total)
    return value
