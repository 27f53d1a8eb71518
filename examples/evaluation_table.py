"""Print the results of runs as Markdown tables, one for each data set, with the published numbers below them."""

from __future__ import annotations

import csv
import sys
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
NOTE = (
    "Published numbers are for the Inception network of 2015, 49,984 training images and as many generated ones. "
    "Compare only rows with equal features, split and images. Rows from Results_rep.xlsx are the best of several runs."
)


def main(runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")]) -> None:
    """Print the tables.

    Args:
        runs: folders of runs, or result files of evaluate.py
    """
    try:
        results = [
            (run.as_posix(), read_json(path, metrics=dict, provenance=dict))
            for run in runs
            for path in ([run] if run.is_file() else sorted(run.glob("evaluations/*.json")))
        ]
    except RefusedError as error:
        sys.exit(f"error: {error}")
    if not results:
        sys.exit("error: runs: expected a run that has results of examples/evaluate.py, found none")
    with Path(__file__).with_name("published.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for dataset in sorted({result["provenance"]["dataset"] for _, result in results}):
        ours = [measured(name, result) for name, result in results if result["provenance"]["dataset"] == dataset]
        known = {"Table 1 of the submission", *(loss for _, loss, *_ in ours)}
        theirs = [published(row) for row in rows if row["dataset"] == dataset and known & {row["source"], row["loss"]}]
        print(f"## {dataset}\n")
        for cells in (HEAD, ["---"] * len(HEAD), *ours, *theirs):
            print(f"| {' | '.join(cells)} |")
        print(f"\n{NOTE}\n" if theirs else "")


def measured(name: str, result: dict[str, Any]) -> list[str]:
    metrics, origin = result["metrics"], result["provenance"]
    settings, checkpoint = origin.get("configuration"), origin.get("checkpoint")
    loss = str(settings.get("loss") or settings.get("method")) if settings else "real"
    iteration = f"{checkpoint['iteration']:,} ({checkpoint['weights']})" if checkpoint else ""
    what = [name, loss, iteration, origin["extractor"]["name"], origin["split"], f"{origin['images']['measured']:,}"]
    return what + [format(metrics[key], spec) if key in metrics else "" for key, spec in NUMBERS.items()]


def published(row: dict[str, str]) -> list[str]:
    details = [f"{name} {row[name]}" for name in (*DETAILS, "finished", "tried") if row[name]]
    what = ", ".join([f"Wang et al., {row['source']}", *details])
    numbers = [row["inception_score"], row["fid"], "", row["ms_ssim"], ""]
    return [what, row["loss"], "100,000", "inception", "train", "49,984", *numbers]


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
