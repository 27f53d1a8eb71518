"""Results of several runs as one table of Markdown for each data set, with the published numbers below them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluation.published import TABLE_1, Published, published
from evaluation.results import Result

HEAD = ("what", "loss", "iteration", "features", "split", "images", "IS", "FID", "KID", "MS-SSIM", "classes")

NUMBERS = {
    "inception_score_mean": ".2f",
    "fid": ".2f",
    "kid_mean": ".4f",
    "ms_ssim": ".4f",
    "class_coverage": ".0%",
}
"""The metrics in the order of their columns, and how they are written."""

NOTE = (
    "Published numbers are of the 2015 Inception network, 49,984 training images and as many generated ones: compare "
    "only rows of the same features, split and images. Rows from Results_rep.xlsx are the best of several runs each."
)


def tables(results: Mapping[str, Sequence[Result]]) -> str:
    """Return the tables of the results of runs, by the names of the runs.

    Raises:
        ValueError: if there is no result.
    """
    rows = [(name, result) for name, found in results.items() for result in found]
    if not rows:
        raise ValueError("runs: none of them has results; write some by examples/evaluate.py")
    datasets = sorted({result["provenance"]["dataset"] for _, result in rows})
    parts = []
    for dataset in datasets:
        here = [(name, result) for name, result in rows if result["provenance"]["dataset"] == dataset]
        losses = {_loss(result) for _, result in here}
        others = [
            row for row in published() if row.dataset == dataset and (row.source == TABLE_1 or row.loss in losses)
        ]
        lines = [_line(HEAD), _line(["---"] * len(HEAD))]
        lines += [_line(_ours(name, result)) for name, result in here] + [_line(_theirs(row)) for row in others]
        parts.append(f"## {dataset}\n\n" + "\n".join(lines) + "\n" + (f"\n{NOTE}\n" if others else ""))
    return "\n".join(parts)


def _ours(name: str, result: Result) -> list[str]:
    metrics, origin = result["metrics"], result["provenance"]
    numbers = [format(metrics[key], spec) if key in metrics else "" for key, spec in NUMBERS.items()]
    checkpoint = origin.get("checkpoint")
    iteration = "" if checkpoint is None else f"{checkpoint['iteration']:,} ({checkpoint['weights']})"
    what = [name, _loss(result), iteration, origin["extractor"]["name"], origin["split"]]
    return [*what, f"{origin['images']['measured']:,}", *numbers]


def _theirs(row: Published) -> list[str]:
    what = [f"Wang et al., {row}", row.loss, "100,000", "inception", "train", "49,984"]
    return [*what, row.inception_score, row.fid, "", row.ms_ssim, ""]


def _loss(result: Result) -> str:
    configuration = result["provenance"].get("configuration")
    return "real" if configuration is None else str(configuration["loss"])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
