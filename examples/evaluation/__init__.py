"""The parts of `evaluate.py`: networks that give features, metrics, and the origin of a number."""

from training import need

need("torchmetrics")
