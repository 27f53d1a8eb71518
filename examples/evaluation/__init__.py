"""The parts of `evaluate.py`: networks that give features, metrics, and the origin of a number."""

from training.requirements import need

need("torchmetrics")
