"""Everything that the documentation shows of the study, made from the folder of the raw logs alone."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from dcgan.atomic import write_text
from sweeps.figure import write

from studies import results
from studies.pictures import bars, choices, curves, kernel_means, samples
from studies.tables import claims, costs, lambdas, losses, norms, observations, scores, updates

TABLES: Mapping[str, ModuleType] = {
    "losses": losses,
    "claims": claims,
    "lambda": lambdas,
    "observations": observations,
    "scores": scores,
    "norms": norms,
    "updates": updates,
    "costs": costs,
}

PICTURES: Mapping[str, ModuleType] = {
    "curves": curves,
    "kernel-means": kernel_means,
    "lambda": bars,
    "samples": samples,
    "choices": choices,
}

BLOCK = re.compile(r"(?<=<!-- table of the study -->\n\n).*?(?=\n<!-- its end -->)", re.DOTALL)
"""Where the table of losses stands in the README."""


def check(options: argparse.Namespace) -> None:
    """Refuse folders that cannot be those of the raw logs and of the documentation."""
    # Tables of nothing would take the place of those that are there.
    if not results.any_known(options.raw):
        options.refuse(f"raw: there are no raw logs of runs in {options.raw}")
    if not (options.root / "README.md").is_file():
        options.refuse(f"root: there is no README.md in {options.root}")


def report(options: argparse.Namespace) -> int:
    """Write all tables and pictures, and return the exit status."""
    root: Path = options.root
    for name, text in fragments(options.raw).items():
        write_text(root / "docs" / "_study" / f"{name}.md", text)
    readme = root / "README.md"
    write_text(readme, with_table(readme.read_text(encoding="utf-8"), losses.table(options.raw)))
    try:
        draw(options.raw, root / "docs" / "_static")
    except ModuleNotFoundError as error:
        print(f"The tables are written, but the pictures need matplotlib and Pillow: {error}")
        return 1
    print(f"Tables and pictures are written below {root / 'docs'}, and the table of losses into {readme}")
    return 0


def fragments(raw: Path) -> dict[str, str]:
    """Return the tables by name."""
    return {name: module.table(raw) for name, module in TABLES.items()}


def draw(raw: Path, to: Path) -> None:
    """Draw all pictures into a folder."""
    from matplotlib.figure import Figure

    for name, module in PICTURES.items():
        figure = Figure(figsize=module.SIZE, dpi=100, layout="constrained")
        module.draw(figure, raw)
        write(to / f"study-{name}.png", figure)


def with_table(readme: str, table: str) -> str:
    """Return the README with another table in its place.

    Raises:
        ValueError: if it has no place for it, or several.
    """
    found, count = BLOCK.subn(lambda _: table, readme)
    if count != 1:
        raise ValueError(f"expected one place for the table of the study in the README, got {count}")
    return found
