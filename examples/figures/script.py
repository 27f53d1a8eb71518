"""Common code of the scripts of figures: checks of a paper's claims, a command line and a picture.

A figure is a module with two functions:

* `claims() -> list[Claim]` checks the paper's claims about the figure;
* `draw(figure: Figure) -> None` draws it. Only this function needs matplotlib.

Its last line is `main(sys.modules[__name__])`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import torch
import training  # noqa: F401  # names all missing packages

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Claim(NamedTuple):
    """A statement about a figure, and the result of checking it."""

    what: str
    """Subject of the statement."""
    paper: str
    """The statement of the paper."""
    here: str
    """The result of the script."""
    holds: bool
    departs: bool = False
    """Whether the result is known to differ from the paper. The docstring of the script explains why."""

    def __str__(self) -> str:
        verdict = "holds" if self.holds else "DOES NOT HOLD"
        known = " (known)" if self.departs and not self.holds else ""
        return f"{self.what}\n    paper: {self.paper}\n    here:  {self.here}\n    {verdict}{known}"


def unexpected(claims: Sequence[Claim]) -> list[Claim]:
    """Return the claims that fail unexpectedly or hold unexpectedly."""
    return [claim for claim in claims if claim.holds == claim.departs]


def integer(low: int, high: float = math.inf) -> Callable[[str], int]:
    """Return an argparse type for integers from `low` to `high`."""
    limits = f"from {low} to {high}" if high < math.inf else f">= {low}"

    def read(text: str) -> int:
        if not text.lstrip("-").isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"expected an integer {limits}, got {text!r}")
        return int(text)

    return read


def save(figure: Figure, path: Path) -> None:
    """Save a picture as a PNG of 128 colours, small enough for a web page."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    with BytesIO() as buffer:
        figure.savefig(buffer)
        Image.open(buffer).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def reader(script: ModuleType) -> argparse.ArgumentParser:
    """Return the parser of the options that all figures have."""
    width, height = script.SIZE
    parser = argparse.ArgumentParser(description=script.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    file = Path(str(script.__file__))
    default = Path("build/figures") / f"{file.parents[1].name}-{file.stem.replace('_', '-')}.png"
    parser.add_argument("--out", type=Path, default=default, help="file of the picture (%(default)s)")
    parser.add_argument("--width", type=_positive, default=width, help="width in inches (%(default)s)")
    parser.add_argument("--height", type=_positive, default=height, help="height in inches (%(default)s)")
    parser.add_argument("--dpi", type=_positive, default=100.0, help="pixels per inch (%(default)s)")
    return parser


def _positive(text: str) -> float:
    if not 0 < float(text) < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number > 0, got {text}")
    return float(text)


def main(script: ModuleType, words: Sequence[str] | None = None) -> None:
    """Check the claims and draw the figure."""
    options = reader(script).parse_args(words)
    torch.set_num_threads(1)
    finish(options, script.claims(), script.draw)


def finish(options: argparse.Namespace, claims: Sequence[Claim], draw: Callable[[Figure], None]) -> None:
    """Print the claims, save the figure, and exit with an error if a claim came out otherwise than documented."""
    from matplotlib.figure import Figure

    print(*claims, sep="\n")
    figure = Figure(figsize=(options.width, options.height), dpi=options.dpi, layout="constrained")
    draw(figure)
    save(figure, options.out)
    print(f"Picture: {options.out}")
    if surprises := unexpected(claims):
        sys.exit("Not as documented: " + "; ".join(claim.what for claim in surprises))
