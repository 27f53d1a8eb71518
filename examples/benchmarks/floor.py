"""What share of the machine's limit do large samples reach?

The floor is the work of any exact computation with dense matrix products: the squared distances of both triangles and
of the cross block, one exponential for each, and the products of the kernel's slopes with the scores for the gradients.
These are 6 N^2 products of vectors of length d for N real and N fake scores. Here they are computed tile by tile,
without norms, sums, bounds and autograd. The fastest of several tile sizes counts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from by_hand import kernels, samples, step
from common import Options, Record, Target, main, markdown, medians, progress
from torch import Tensor

from torch_mmd_losses import mmd2

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = ((1024, 128), (4096, 128))
QUICK = ((96, 2),)
TILES = (256, 384, 512, 768)

PROMISED = (4096, 128)
SHARES = {"RBF": 0.70, "5 RBF": 0.60, "5 RQ": 0.45}


def products(a: Tensor, b: Tensor, to_a: Tensor, to_b: Tensor, buffer: Tensor) -> None:
    """Do the work for the pairs of `a` and `b`; if they are one tensor, for those on and above the diagonal."""
    size = len(buffer)
    for row in range(0, len(a), size):
        rows = slice(row, row + size)
        for column in range(row if a is b else 0, len(b), size):
            columns = slice(column, column + size)
            height, width = len(a[rows]), len(b[columns])
            tile = buffer.view(-1)[: height * width].view(height, width)
            torch.mm(a[rows], b[columns].T, out=tile)
            tile.exp2_()
            to_a[rows].addmm_(tile, b[columns])
            if a is not b or row != column:
                to_b[columns].addmm_(tile.T, a[rows])


@torch.no_grad()
def floor(real: Tensor, fake: Tensor, buffer: Tensor) -> tuple[Tensor, Tensor]:
    """Do the work for all three groups and return sums that stand for the gradients."""
    to_real, to_fake = torch.zeros_like(real), torch.zeros_like(fake)
    products(real, real, to_real, to_real, buffer)
    products(real, fake, to_real, to_fake, buffer)
    products(fake, fake, to_fake, to_fake, buffer)
    return to_real, to_fake


def measure(options: Options) -> list[Record]:
    """Return a record for each size: seconds of the floor by tile size, and of the library by kernel."""
    records = []
    for n, d in options.sizes(SIZES, QUICK):
        progress(n, d)
        real, fake = samples(n, d, options.seed)
        # Scaled so that no exponential overflows or gets subnormal, which would be slow.
        small_real, small_fake = (scores.detach() / d**0.5 for scores in (real, fake))
        steps: dict[str, Callable[[], object]] = {
            f"tile {size}": partial(floor, small_real, small_fake, torch.empty(size, size)) for size in TILES
        }
        for name, pair in kernels(d).items():
            steps[name] = step(partial(mmd2, kernel=pair.ours, estimator="biased"), real, fake)
        # Each line of the table gets its time.
        records.append({"n": n, "d": d, **medians(steps, 3 * options.seconds)})
    return records


def fastest(record: Record) -> tuple[int, float]:
    """Return the best tile size and its seconds."""
    return min(((size, float(record[f"tile {size}"])) for size in TILES), key=lambda pair: pair[1])


def shares(record: Record) -> dict[str, float]:
    """Return the time of the floor as a share of the library's, by kernel."""
    return {name: fastest(record)[1] / record[name] for name in SHARES}


def table(records: list[Record]) -> str:
    """Return a line for each size and kernel."""
    rows = []
    for r in records:
        size, seconds = fastest(r)
        speed = 12 * r["n"] ** 2 * r["d"] / seconds / 1e9
        for name, share in shares(r).items():
            cells = [f"{r['n']}, {r['d']}", name, f"{seconds * 1e3:.3g}", str(size), f"{speed:.0f}"]
            rows.append([*cells, f"{r[name] * 1e3:.3g}", f"{share:.2f}"])
    header = ["samples, d", "kernel", "floor [ms]", "its tile", "its GFLOP/s", "`mmd2` [ms]", "floor / `mmd2`"]
    return markdown(header, rows)


def targets(records: list[Record]) -> list[Target]:
    """Return the promised shares."""
    found = [shares(r) for r in records if (r["n"], r["d"]) == PROMISED]
    measured = found[0] if found else {}
    return [
        Target(f"floor / `mmd2`, {PROMISED}, {kernel}", limit, measured.get(kernel), least=True)
        for kernel, limit in SHARES.items()
    ]


def draw(records: list[Record], figure: Figure) -> None:
    """Draw the shares with a dash where the target is."""
    axes = figure.subplots()
    for i, r in enumerate(records):
        spots = [place + (i - (len(records) - 1) / 2) * 0.38 for place in range(len(SHARES))]
        axes.bar(spots, list(shares(r).values()), width=0.36, label=f"{r['n']} samples, d = {r['d']}")
        if (r["n"], r["d"]) == PROMISED:
            for spot, limit in zip(spots, SHARES.values(), strict=True):
                axes.hlines(limit, spot - 0.18, spot + 0.18, colors="black")
    axes.axhline(1, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xticks(range(len(SHARES)), list(SHARES))
    axes.set_ylabel("time of the floor / time")
    axes.set_title("Share of the machine's limit (dash: target)")
    axes.legend()


if __name__ == "__main__":
    main(sys.modules[__name__])
