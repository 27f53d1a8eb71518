"""Print the results of runs as Markdown tables, one for each data set, with the published numbers below them.

`published.csv` has two kinds of published numbers. Those of Table 1 of the submission to ICLR 2019 are the best over 16
pairs of learning rates. Those of the raw results in the authors' repository (`Results_rep.xlsx`) are the run with the
lowest FID for each data set, loss and `total_scale` (C^K), with the number of pairs tried, and of those with an FID.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

if __name__ == "__main__":  # before other imports, so that all missing packages are named at once
    import training  # noqa: F401

import tyro
from training.errors import RefusedError
from training.files import read_json

HEAD = ("what", "loss", "iteration", "features", "split", "images", "IS", "FID", "KID", "MS-SSIM", "classes")
NUMBERS = {"inception_score_mean": ".2f", "fid": ".2f", "kid_mean": ".4f", "ms_ssim": ".4f", "class_coverage": ".0%"}
DETAILS = ("normalisation", "total_scale", "scores", "gradient_penalty", "lr_discriminator", "lr_generator")
TABLE_1 = "Table 1 of the submission"
NOTE = (
    "Published numbers are for the Inception network of 2015, 49,984 training images and as many generated ones. "
    "Compare only rows with equal features, split and images. Rows from Results_rep.xlsx are the best of several runs."
)


def main(runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")]) -> None:
    """Print the results of runs as Markdown tables, one for each data set, with the published numbers below them.

    Args:
        runs: folders of runs, or result files of evaluate.py
    """
    try:
        rows = [
            (run.as_posix(), read_json(path, metrics=dict, provenance=dict))
            for run in runs
            for path in ([run] if run.is_file() else sorted(run.glob("evaluations/*.json")))
        ]
    except RefusedError as error:
        sys.exit(f"error: {error}")
    if not rows:
        sys.exit("error: runs: expected a run that has results of examples/evaluate.py, found none")
    datasets = sorted({row["provenance"]["dataset"] for _, row in rows})
    print("\n".join(table(dataset, rows) for dataset in datasets), end="")


def table(dataset: str, rows: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """Return the table of a data set, given pairs of the name of a run and a result."""
    ours = [_ours(name, result) for name, result in rows if result["provenance"]["dataset"] == dataset]
    losses = {cells[1] for cells in ours}
    theirs = [
        _theirs(row)
        for row in published()
        if row["dataset"] == dataset and (row["source"] == TABLE_1 or row["loss"] in losses)
    ]
    lines = [f"| {' | '.join(cells)} |" for cells in (HEAD, ["---"] * len(HEAD), *ours, *theirs)]
    return "\n".join([f"## {dataset}", "", *lines, *(["", NOTE, ""] if theirs else [""])])


def published() -> list[dict[str, str]]:
    """Return the rows of `published.csv`; missing values are empty strings."""
    with Path(__file__).with_name("published.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _ours(name: str, result: dict[str, Any]) -> list[str]:
    metrics, origin = result["metrics"], result["provenance"]
    numbers = [format(metrics[key], spec) if key in metrics else "" for key, spec in NUMBERS.items()]
    settings, checkpoint, iteration = origin.get("configuration"), origin.get("checkpoint"), ""
    loss = str(settings.get("loss") or settings.get("method")) if settings else "real"
    if checkpoint:
        iteration = f"{checkpoint['iteration']:,} ({checkpoint['weights']})"
    what = [name, loss, iteration, origin["extractor"]["name"], origin["split"]]
    return [*what, f"{origin['images']['measured']:,}", *numbers]


def _theirs(row: dict[str, str]) -> list[str]:
    what = [
        f"Wang et al., {row['source']}",
        *(f"{name} {row[name]}" for name in (*DETAILS, "finished", "tried") if row[name]),
    ]
    numbers = [row["inception_score"], row["fid"], "", row["ms_ssim"], ""]
    return [", ".join(what), row["loss"], "100,000", "inception", "train", "49,984", *numbers]


if __name__ == "__main__":
    tyro.cli(main)
