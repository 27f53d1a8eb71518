"""The parts of `evaluate.py`: networks for features, metrics, and provenance."""

from training import need

need("torchmetrics")
