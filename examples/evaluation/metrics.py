"""All metrics of one set of images beside another."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch

from evaluation import classes
from evaluation.classes import COVERED
from evaluation.features import Features
from evaluation.images import Pixels

METRICS = ("is", "fid", "kid", "ms-ssim", "classes")

WITH_SIMILARITY = ("celeba", "lsun")
"""The data sets of which the paper reports MS-SSIM; the others have images of many classes."""

SUBSETS, SUBSET_SIZE = 100, 1000
"""Subsets of the kernel distance, and images in each, as torch-fidelity has them."""

RESIZED = 256
"""Height and width of images for MS-SSIM, as in the authors' code: its five scales need more than 160 pixels."""


class Settings(NamedTuple):
    """How to measure."""

    metrics: Collection[str]
    splits: int
    subset_size: int
    seed: int
    batch_size: int
    device: torch.device

    def provenance(self) -> dict[str, Any]:
        """Return what to write down about them."""
        found: dict[str, Any] = {"seed": self.seed, "device": str(self.device), "batch_size": self.batch_size}
        if "is" in self.metrics:
            found["inception_score"] = {"splits": self.splits}
        if "kid" in self.metrics:
            found["kid"] = {"subsets": SUBSETS, "subset_size": self.subset_size, "kernel": "(a.b / d + 1) ** 3"}
        if "ms-ssim" in self.metrics:
            found["ms_ssim"] = {"resize": f"to {RESIZED} x {RESIZED}, bilinear", "pairs": "0 and 1, 2 and 3, ..."}
        if "classes" in self.metrics:
            found["class_coverage"] = {"at_least": COVERED, "of": "the share of the class among the real images"}
        return found


class Measurement(NamedTuple):
    """Metrics by name, and how often each class was predicted, if that was asked for."""

    metrics: dict[str, float]
    class_shares: dict[str, list[float]] | None


def usual(features: Features, dataset: str) -> tuple[str, ...]:
    """Return the metrics that make sense with features, and that the paper reports of a data set."""
    found = {"fid", "kid"} | ({"is"} if features.has_logits else set())
    if features.network is not None and features.has_logits:
        found.add("classes")
    if dataset in WITH_SIMILARITY:
        found.add("ms-ssim")
    return tuple(name for name in METRICS if name in found)


def check(metrics: Collection[str], features: Features, *, count: int, subset_size: int) -> None:
    """Check before images are made that metrics can be had, and warn of those that mean little.

    Raises:
        ModuleNotFoundError: if a package for them is not installed.
        ValueError: if the features or the number of images do not suffice for them.
    """
    for package, names in (("torch_fidelity", {"is", "fid", "kid"}), ("torchmetrics", {"ms-ssim"})):
        if names & set(metrics) and find_spec(package) is None:
            raise ModuleNotFoundError(f"{package.replace('_', '-')} is not installed: pip install -e '.[paper]'")
    if "is" in metrics and not features.has_logits:
        raise ValueError("metrics: is needs a network that returns features and logits")
    if "classes" in metrics and (features.network is None or not features.has_logits):
        raise ValueError("metrics: classes needs a classifier of the data set; name one by --features")
    if subset_size > count:
        raise ValueError(f"kid_subset_size: expected at most the number of images, {count}; got {subset_size}")
    dimension = features.provenance["dimension"]
    if "fid" in metrics and count <= dimension:
        print(
            f"Warning: {count} images do not determine the covariance of {dimension} features; compare this FID only "
            "with others of as many images",
            file=sys.stderr,
        )


def measure(features: Features, measured: Pixels, real: Pixels, how: Settings) -> Measurement:
    """Return the metrics of images.

    Raises:
        ValueError: if the network's output, or a metric, is no finite number.
    """
    metrics: dict[str, float] = {}
    if {"is", "fid", "kid"} & set(how.metrics):
        from evaluation import fidelity

        metrics |= fidelity.measure(features, measured, real, how)
    if "ms-ssim" in how.metrics:
        from evaluation import similarity

        metrics["ms_ssim"] = similarity.mean_similarity(measured, how.device)
    shares: dict[str, list[float]] | None = None
    if "classes" in how.metrics:
        assert features.network is not None  # which was checked
        of_measured, of_real = (
            classes.shares(features.network, pixels, batch_size=how.batch_size, device=how.device)
            for pixels in (measured, real)
        )
        metrics["class_coverage"] = classes.coverage(of_measured, of_real)
        metrics["class_entropy"] = classes.entropy(of_measured)
        shares = {"measured": of_measured.tolist(), "real": of_real.tolist()}
    lost = [name for name, value in metrics.items() if not math.isfinite(value)]
    if lost:
        raise ValueError(f"metrics: {', '.join(lost)} came out as no finite number")
    return Measurement(metrics, shares)
