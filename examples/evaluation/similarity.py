"""Multi-scale structural similarity of pairs of generated images: the higher, the less they differ."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as ms_ssim

from evaluation.images import Pixels
from evaluation.metrics import RESIZED

_PAIRS = 16
"""How many go through at once; more take more memory and no less time."""


def mean_similarity(images: Pixels, device: torch.device) -> float:
    """Return the mean over the pairs of neighbours (0 and 1, 2 and 3, ...), a last image without one left out.

    Raises:
        ValueError: if there is no pair.
    """
    pairs = torch.from_numpy(images)[: len(images) // 2 * 2].unflatten(0, (-1, 2))
    if not len(pairs):
        raise ValueError(f"images: expected at least 2 for MS-SSIM, got {len(images)}")
    with torch.inference_mode():
        found = [_of_pairs(part.to(device)) for part in pairs.split(_PAIRS)]
    return torch.cat(found).double().mean().item()


def _of_pairs(pairs: Tensor) -> Tensor:
    large = F.interpolate(pairs.flatten(0, 1).float(), size=(RESIZED, RESIZED), mode="bilinear", align_corners=False)
    first, second = large.unflatten(0, (-1, 2)).unbind(1)
    # A negative similarity at a coarse scale has no real power; it counts as zero, as in TensorFlow.
    return torch.atleast_1d(ms_ssim(first, second, data_range=255.0, reduction="none", normalize="relu"))
