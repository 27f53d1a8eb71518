"""Write the tables of the papers' experiments into docs: lower bounds of the time on one GPU, and published numbers.

    python examples/benchmarks/preset_table.py

The page of the experiments gets the times of all presets; the page of each paper gets those of its own presets and its
Table 1. If a paper has several methods, its page also gets the times of the default one. The times come from the last
records of `roofline.py`; run that first.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path

import roofline
from common import RESULTS, Record, markdown, read

ROOT = Path(__file__).parents[2]
EXPERIMENTS, WANG, ARBEL = "experiments.md", "wang2019.md", "arbel2018.md"
PAGES = {roofline.WANG: WANG, roofline.ARBEL: ARBEL}
DEFAULT_METHOD = {roofline.ARBEL: "sn-smmd"}
"""That of the scripts of a paper with several methods."""
BOUNDS = {"roofline": "lower bound, not measured", "with_launches": "lower bound with launches, not measured"}
"""The two times of a record, and the heads of their columns."""
HEADER = ["images", "script", "run in full here", *BOUNDS.values()]
TIMES, PUBLISHED = "the presets", "published numbers"
"""The tables, as the marks in the pages name them."""

DATA_SETS = {
    "cifar10": "CIFAR-10",
    "stl10": "STL-10",
    "celeba": "CelebA",
    "lsun": "LSUN bedrooms",
    "imagenet": "ImageNet",
}

METRICS = {
    "fid": "FID, lower is better",
    "kid": "KID, lower is better",
    "inception_score": "IS, higher is better",
    "ms_ssim": "MS-SSIM, lower is more diverse",
}

OF_ARBEL = {
    "cifar10": {
        "smmd": "25.1 ± 0.3, 0.015 ± 0.001, 7.48 ± 0.1",
        "sn-smmd": "24.5 ± 0.2, 0.015 ± 0.001, 7.43 ± 0.11",
        "sn-swgan": "27.9 ± 0.4, 0.016 ± 0.001, 7.34 ± 0.13",
        "mmd-gan-gp-l2": "23.6 ± 0.1, 0.014 ± 0.0, 7.55 ± 0.12",
        "wgan-gp": "40.2 ± 0.1, 0.024 ± 0.001, 6.68 ± 0.06",
        "sn-gan": "26.1 ± 0.1, 0.015 ± 0.001, 7.29 ± 0.12",
        "sobolev-gan": "132.2 ± 0.1, 0.113 ± 0.001, 3.21 ± 0.03",
    },
    "celeba": {
        "smmd": "25.9 ± 0.1, 0.019 ± 0.001, 2.83 ± 0.04",
        "sn-smmd": "12.2 ± 0.1, 0.006 ± 0.0, 2.91 ± 0.04",
        "sn-swgan": "18.6 ± 0.1, 0.011 ± 0.0, 2.86 ± 0.05",
        "mmd-gan-gp-l2": "20.55 ± 0.25, 0.013 ± 0.001, 2.61 ± 0.01",
        "wgan-gp": "29.24 ± 0.22, 0.022 ± 0.001, 2.72 ± 0.01",
        "sn-gan": "27.7 ± 0.5, 0.018 ± 0.001, 2.64 ± 0.03",
        "sobolev-gan": "20.4 ± 0.1, 0.014 ± 0.001, 2.84 ± 0.05",
    },
    "imagenet": {
        "sn-smmd": "36.6 ± 0.2, 0.035 ± 0.0, 10.91 ± 0.15",
        "sn-gan": "47.5 ± 0.1, 0.044 ± 0.0, 11.16 ± 0.13",
        "BGAN": "43.9 ± 0.3, 0.047 ± 0.0, 10.70 ± 0.46",
    },
}
"""FID, KID and Inception score of Table 1 of Arbel et al."""

Published = dict[tuple[str, str, str], str]
"""Numbers by metric, data set and method."""


def published_by_wang() -> Published:
    """Return Table 1 of the submission of Wang et al."""
    with (ROOT / "examples" / "published.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == "Table 1 of the submission"]
    return {(name, row["dataset"], row["loss"]): row[name] for row in rows for name in METRICS if row.get(name)}


def published_by_arbel() -> Published:
    """Return Table 1 of Arbel et al."""
    metrics = ("fid", "kid", "inception_score")
    return {
        (name, dataset, method): cell
        for dataset, found in OF_ARBEL.items()
        for method, cells in found.items()
        for name, cell in zip(metrics, cells.split(", "), strict=True)
    }


def numbers(published: Published) -> str:
    """Return a table for each metric, with a line for each method."""
    made = []
    for metric, title in METRICS.items():
        found = {key[1:]: number for key, number in published.items() if key[0] == metric}
        if not found:
            continue
        datasets, methods = (list(dict.fromkeys(names)) for names in zip(*found, strict=True))
        header = [title, *(DATA_SETS[dataset] for dataset in datasets)]
        rows = [
            [
                {"real": "real images", "BGAN": "BGAN"}.get(method, f"`{method}`"),
                *(found.get((dataset, method), "-") for dataset in datasets),
            ]
            for method in methods
        ]
        made.append(markdown(header, rows))
    return "\n\n".join(made)


def duration(hours: float) -> str:
    """Return a time to two digits."""
    return f"{hours * 60:.0f} min" if hours < 0.995 else f"{hours:.2g} h"


def span(hours: Iterable[float]) -> str:
    """Return the least and the greatest of some times."""
    listed = sorted(hours)
    return " to ".join(dict.fromkeys([duration(listed[0]), duration(listed[-1])]))


def row(records: list[Record]) -> list[str]:
    """Return the cells of the presets of one data set."""
    first = records[0]
    kind = "dcgan" if first["paper"] == roofline.WANG else "smmd"
    return [
        f"{DATA_SETS[first['experiment']]}, {first['size']} pixels",
        f"`{kind}_{first['experiment']}.py`",
        "no",
        *(span(roofline.hours(record, bound) for record in records) for bound in BOUNDS),
    ]


def times(records: list[Record]) -> str:
    """Return a line for each data set of each paper."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record["paper"], record["experiment"]), []).append(record)
    rows = [[f"[{paper}]({PAGES[paper]})", *row(group)] for (paper, _), group in groups.items()]
    return markdown(["paper", *HEADER], rows)


def times_of_paper(paper: str, records: list[Record]) -> str:
    """Return a line for each data set of a paper, with the times of its default method if it has several methods."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record["paper"] == paper:
            groups.setdefault(record["experiment"], []).append(record)
    header, rows = list(HEADER), [row(group) for group in groups.values()]
    if paper in DEFAULT_METHOD:
        method = DEFAULT_METHOD[paper]
        header += [f"`{method}`: {name}" for name in BOUNDS.values()]
        for cells, group in zip(rows, groups.values(), strict=True):
            (default,) = (record for record in group if record["method"] == method)
            cells += [duration(roofline.hours(default, bound)) for bound in BOUNDS]
    return markdown(header, rows)


def tables(records: list[Record]) -> dict[tuple[str, str], str]:
    """Return all tables, by the name of the page and their own."""
    found = {(EXPERIMENTS, TIMES): times(records)}
    for paper, page in PAGES.items():
        found[page, TIMES] = times_of_paper(paper, records)
    return found | {
        (WANG, PUBLISHED): numbers(published_by_wang()),
        (ARBEL, PUBLISHED): numbers(published_by_arbel()),
    }


def block(name: str) -> re.Pattern[str]:
    """Return where a page has the table of a name."""
    return re.compile(rf"(?<=<!-- table of {name} -->)\n.*?(?=<!-- its end -->)", re.DOTALL)


if __name__ == "__main__":
    last = read(roofline, RESULTS)
    assert last is not None
    for (name, of_what), text in tables(last[1]).items():
        page = ROOT / "docs" / name
        written = block(of_what).sub(lambda _: f"\n\n{text}\n\n", page.read_text(encoding="utf-8"))  # noqa: B023
        page.write_text(written, encoding="utf-8")
