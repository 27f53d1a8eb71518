"""The numbers that Wang et al. published: `published.csv` beside this file.

Its rows are Table 1 of the submission to ICLR 2019, where each number is the best over 16 pairs of learning rates; and
from the raw results in the authors' repository (`Results_rep.xlsx`), for each data set, loss and constant, the run of
the lowest FID, with how many of the pairs that were tried have an FID at all. That the columns of those sheets are C to
the power of the number of layers, and the rows learning rates of D and then of G, is read from the authors' scripts.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

TABLE_1 = "Table 1 of the submission"


class Published(NamedTuple):
    """A row, of strings as in the file; an empty one stands for what is not there."""

    source: str
    dataset: str
    loss: str
    scores: str
    normalisation: str
    total_scale: str
    gradient_penalty: str
    lr_discriminator: str
    lr_generator: str
    finished: str
    tried: str
    inception_score: str
    fid: str
    ms_ssim: str

    def __str__(self) -> str:
        if self.source == TABLE_1:
            return self.source
        constant = f"C^K = {self.total_scale}" if self.total_scale else ""
        scores = f"{self.scores} scores" if self.scores else ""
        penalty = f"gradient penalty {self.gradient_penalty}" if self.gradient_penalty else ""
        method = "PIM" if self.normalisation == "matrix" else ""
        rates = f"rates {self.lr_discriminator}, {self.lr_generator}"
        parts = (self.source, constant, method, scores, penalty, rates, f"{self.finished} of {self.tried} finished")
        return ", ".join(part for part in parts if part)


def published() -> list[Published]:
    """Return all rows."""
    with Path(__file__).with_name("published.csv").open(encoding="utf-8", newline="") as file:
        return [Published(**row) for row in csv.DictReader(file)]
