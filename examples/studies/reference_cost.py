"""The cost of the loss of a one-step generator on GPUs, for each reference, by a roofline model.

The model is that of `examples/benchmarks/roofline.py`. An operator takes the time of its FLOP at the peak of one H100
in float32, or the time of moving its bytes to and from memory, whichever is longer. No operators are fused, and peaks
are reached, which no real kernel does. Only the loss and its gradient by the features are counted: the generator, the
encoders and the communication between GPUs are left out. Each GPU has its share of the reference's rows, or of the
generated images. `python examples/study_one_step.py report` writes the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sweeps.tables import markdown

PEAK, BANDWIDTH = 67e12, 3.35e12
"""FLOP and bytes per second in float32, as in roofline.py; a test compares them."""
FLOAT = 4
"""Bytes per number."""
GPUS = (1, 8)


class Setting(NamedTuple):
    """The numbers of a training that determine the cost of its loss."""

    batch: int
    rows: int
    encoders: int
    dimensions: int
    """Number of features of all encoders together."""
    landmarks: int
    steps: int


SETTINGS: Mapping[str, Setting] = {
    # ImageNet-256 in Representation Distribution Matching (arXiv 2607.02375), with ten encoders.
    "RDM, ImageNet-256": Setting(5120, 1_281_167, 10, 13_184, 4096, 4000),
    # The preset cifar10 of one_step_cifar10.py with DINOv2 ViT-B/14; 5,000 images are held out.
    "preset `cifar10`, DINOv2 ViT-B/14": Setting(4096, 45_000, 1, 768, 1024, 100_000),
}


def pairs(rows: float, columns: float, dimensions: float, encoders: int) -> float:
    """Return the least seconds of the kernel values between rows and columns, and of the gradient by the rows.

    The count is one matrix product, kernel values of its entries, which are read and written, and a second product.
    """
    entries, samples = rows * columns * encoders, (rows + columns) * dimensions
    product = max(2 * rows * columns * dimensions / PEAK, FLOAT * (entries + samples) / BANDWIDTH)
    return 2 * product + 2 * FLOAT * entries / BANDWIDTH


def seconds(setting: Setting, reference: str, gpus: int) -> float:
    """Return the least seconds of the loss of a step."""
    own, each = setting.batch / gpus, (setting.dimensions, setting.encoders)
    repulsion = pairs(own, setting.batch, *each)
    if reference == "exact":
        return repulsion + pairs(setting.batch, setting.rows / gpus, *each)
    return repulsion + pairs(own, setting.landmarks if reference == "Nyström" else setting.batch, *each)


def gigabytes(setting: Setting, reference: str, gpus: int) -> float:
    """Return the gigabytes of reference data on each GPU."""
    rows = setting.landmarks if reference == "Nyström" else setting.rows / gpus
    return rows * setting.dimensions * FLOAT / 1e9


def table() -> str:
    """Return the table with a line for each setting, reference and number of GPUs."""
    rows = []
    for name, setting in SETTINGS.items():
        for reference in ("exact", "Nyström", "resampled"):
            for gpus in GPUS:
                taken = seconds(setting, reference, gpus)
                hours = taken * setting.steps / 3600
                memory = gigabytes(setting, reference, gpus)
                cells = [f"{gpus}", f"{memory:.2g}", f"{1000 * taken:,.1f}", f"{setting.steps:,}", f"{hours:.2g}"]
                rows.append([name, reference, *cells])
    head = ["setting", "reference", "GPUs", "GB a GPU", "ms a step, loss alone", "steps", "hours of the loss alone"]
    return markdown(head, rows)
