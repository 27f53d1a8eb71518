"""Write the table of the presets into docs/experiments.md: what the papers report, and hours by `roofline.py`.

The hours come from the last records of `roofline.py`; run that first. FIDs are those of `examples/published.csv` and of
Table 1 of Arbel et al. (2018).
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

import roofline
from common import RESULTS, Record, markdown, read

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"(?<=<!-- table of the presets -->\n).*?(?=\n<!-- its end -->)", re.DOTALL)

OF_ARBEL = {
    "cifar10": {
        "smmd": 25.1,
        "sn-smmd": 24.5,
        "sn-swgan": 27.9,
        "mmd-gan-gp-l2": 23.6,
        "wgan-gp": 40.2,
        "sn-gan": 26.1,
        "sobolev-gan": 132.2,
    },
    "celeba": {
        "smmd": 25.9,
        "sn-smmd": 12.2,
        "sn-swgan": 18.6,
        "mmd-gan-gp-l2": 20.55,
        "wgan-gp": 29.24,
        "sn-gan": 27.7,
        "sobolev-gan": 20.4,
    },
    "imagenet": {"sn-smmd": 36.6, "sn-gan": 47.5},
}
"""FIDs of Table 1 of Arbel et al.; those of SN-GAN on ImageNet are of its authors' model. SWGAN has none."""


def of_wang(dataset: str) -> dict[str, str]:
    """Return the FIDs of the losses on a data set in Table 1 of the submission of Wang et al."""
    with (ROOT / "examples" / "published.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == "Table 1 of the submission"]
    return {row["loss"]: row["fid"] for row in rows if row["dataset"] == dataset and row["loss"] != "real"}


def row(records: list[Record]) -> list[str]:
    """Return the cells of the presets of one data set."""
    first = records[0]
    is_wang = first["paper"] == roofline.WANG
    fids = of_wang(first["experiment"]) if is_wang else OF_ARBEL[first["experiment"]]
    preset = f"`dcgan_{first['experiment']}.py`" if is_wang else f"`smmd_{first['experiment']}.py`"
    bounds = []
    for bound in ("roofline", "with_launches"):
        found = [f"{roofline.hours(record, bound):.2f}" for record in records]
        least, most = min(found, key=float), max(found, key=float)
        bounds.append(least if least == most else f"{least} to {most}")
    return [first["paper"], preset, "no", ", ".join(f"{name} {fid}" for name, fid in fids.items()), *bounds]


def table(records: list[Record]) -> str:
    """Return a line for each data set of each paper."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record["paper"], record["experiment"]), []).append(record)
    header = ["paper", "script", "run in full here", "FID in the paper", "hours of a run", "with launches"]
    return markdown(header, [row(group) for group in groups.values()])


if __name__ == "__main__":
    last = read(roofline, RESULTS)
    assert last is not None
    page = ROOT / "docs" / "experiments.md"
    text = table(last[1])
    page.write_text(BLOCK.sub(lambda _: f"\n{text}\n", page.read_text(encoding="utf-8")), encoding="utf-8")
