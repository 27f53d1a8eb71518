"""The metrics, computed by torchmetrics from features, logits or images, and the shares of classes."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance
from torchmetrics.image.ssim import MultiScaleStructuralSimilarityIndexMeasure

SUBSETS, SUBSET_SIZE = 100, 1000  # of the kernel distance, as in torch-fidelity
RESIZED = 256  # size for MS-SSIM, as in the authors' code: its five scales need more than 160 pixels
COVERED = 0.1  # smallest ratio of a covered class's share to its share among real images


def inception_score(logits: Tensor, splits: int) -> dict[str, float]:
    """Return mean and standard deviation of the score over random splits; the deviation is 0 for one split."""
    with warnings.catch_warnings():  # about the memory of the logits, and the deviation of one number
        warnings.simplefilter("ignore")
        metric = InceptionScore(nn.Identity(), splits=splits)
        metric.update(logits)
        mean, std = metric.compute()
    return {"inception_score_mean": mean.item(), "inception_score_std": std.item() if splits > 1 else 0.0}


def frechet_distance(features: Tensor, real: Tensor) -> dict[str, float]:
    """Return the Frechet distance of features `(n, d)`."""
    given = nn.Identity()
    given.num_features = features.shape[1]  # type: ignore[assignment]  # the metric reads the dimension here
    metric = FrechetInceptionDistance(given)
    metric.update(real, real=True)
    metric.update(features, real=False)
    return {"fid": metric.compute().item()}


def kernel_distance(features: Tensor, real: Tensor, subset_size: int) -> dict[str, float]:
    """Return mean and standard deviation of the kernel distance over subsets, drawn by torch's global generator."""
    with warnings.catch_warnings():  # about the memory of the features
        warnings.simplefilter("ignore")
        metric = KernelInceptionDistance(nn.Identity(), subsets=SUBSETS, subset_size=subset_size)
    metric.update(real, real=True)
    metric.update(features, real=False)
    mean, std = metric.compute()
    return {"kid_mean": mean.item(), "kid_std": std.item()}


def similarity(pixels: Tensor, device: torch.device) -> dict[str, float]:
    """Return the mean MS-SSIM of consecutive pairs (0 and 1, 2 and 3, ...) of images `(n, channels, h, w)` in bytes."""
    # A negative similarity at a coarse scale has no real power and counts as zero, as in TensorFlow.
    metric = MultiScaleStructuralSimilarityIndexMeasure(data_range=255.0, normalize="relu").to(device)
    for part in pixels[: len(pixels) // 2 * 2].split(32):
        large = F.interpolate(part.to(device).float(), (RESIZED, RESIZED), mode="bilinear")
        metric.update(large[::2], large[1::2])
    return {"ms_ssim": metric.compute().item()}


def class_shares(logits: Tensor) -> Tensor:
    """Return the share of the images that are predicted as each class, `(classes,)`."""
    return logits.argmax(1).bincount(minlength=logits.shape[1]).double() / len(logits)


def class_coverage(measured: Tensor, real: Tensor) -> dict[str, float]:
    """Return the share of the real images' classes that are covered, and the entropy of the measured shares in nats."""
    covered = (measured[real > 0] >= COVERED * real[real > 0]).double().mean().item()
    return {"class_coverage": covered, "class_entropy": torch.special.entr(measured).sum().item()}
