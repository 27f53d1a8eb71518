"""How long do a loss and its gradient take, compared with plain autograd and a hinge loss?

"Plain" is the biased MMD^2 from three Gram matrices with autograd, as in hand-written code. "Both" are the losses of
discriminator and generator in one call. Sizes are (samples of each group, score dimension).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from by_hand import Loss, Pair, hinge, kernels, plain, samples, step
from common import Options, Record, Target, main, markdown, medians, progress

from torch_mmd_losses import MMDLoss, mmd2

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = ((64, 16), (256, 16), (1024, 128), (4096, 128))
QUICK = ((8, 2), (160, 2))

OVER_PLAIN = {
    (64, 16): {"RBF": 0.35, "5 RBF": 0.35, "5 RQ": 0.35},
    (1024, 128): {"RBF": 0.45, "5 RBF": 0.33, "5 RQ": 0.34},
    (4096, 128): {"RBF": 0.48, "5 RBF": 0.31, "5 RQ": 0.29},
}
BOTH_OVER_PLAIN = {(64, 16): 0.30, (1024, 128): 0.25}
OVER_HINGE = 2.2


def candidates(pair: Pair) -> dict[str, Loss]:
    """Return the losses to time."""
    loss = MMDLoss(pair.ours, estimator="biased")
    return {
        "plain": plain(pair.by_hand),
        "mmd2": lambda real, fake: mmd2(real, fake, pair.ours, estimator="biased"),
        "both": lambda real, fake: torch.stack(loss.both(real, fake)).sum(),
        "hinge": hinge,
    }


def measure(options: Options) -> list[Record]:
    """Return a record for each size and kernel, times in seconds."""
    records = []
    for n, d in options.sizes(SIZES, QUICK):
        progress(n, d)
        real, fake = samples(n, d, options.seed)
        for name, pair in kernels(d).items():
            steps = {key: step(loss, real, fake) for key, loss in candidates(pair).items()}
            records.append({"n": n, "d": d, "kernel": name, **medians(steps, options.seconds)})
    return records


def over_plain(record: Record) -> float:
    """Return the time of `mmd2` as a share of that of the same by hand."""
    return float(record["mmd2"] / record["plain"])


def both_over_plain(record: Record) -> float:
    """Return the time of both losses as a share of two losses by hand."""
    return float(record["both"] / record["plain"] / 2)


def over_hinge(record: Record) -> float:
    """Return the time of `mmd2` in hinge losses."""
    return float(record["mmd2"] / record["hinge"])


def table(records: list[Record]) -> str:
    """Return a line for each size and kernel."""
    header = ["samples, d", "kernel", "`mmd2` [ms]", "`mmd2` / plain", "`both` / two plain", "`mmd2` / hinge"]
    rows = []
    for r in records:
        ratios = [f"{over_plain(r):.2f}", f"{both_over_plain(r):.2f}", f"{over_hinge(r):.1f}"]
        rows.append([f"{r['n']}, {r['d']}", r["kernel"], f"{r['mmd2'] * 1e3:.3g}", *ratios])
    return markdown(header, rows)


def targets(records: list[Record]) -> list[Target]:
    """Return the promised ratios."""
    found = {(r["n"], r["d"], r["kernel"]): r for r in records}

    def target(what: str, ratio: Callable[[Record], float], limit: float, n: int, d: int, kernel: str) -> Target:
        record = found.get((n, d, kernel))
        return Target(f"{what}, ({n}, {d}), {kernel}", limit, None if record is None else ratio(record))

    result = []
    for (n, d), limits in OVER_PLAIN.items():
        for kernel, limit in limits.items():
            result.append(target("`mmd2` / plain", over_plain, limit, n, d, kernel))
    for (n, d), limit in BOTH_OVER_PLAIN.items():
        result += [target("`both` / two plain", both_over_plain, limit, n, d, kernel) for kernel in kernels(d)]
    return [*result, target("`mmd2` / hinge", over_hinge, OVER_HINGE, 64, 16, "RBF")]


def draw(records: list[Record], figure: Figure) -> None:
    """Draw the shares of the time by hand, with a dash where the target is."""
    axes = figure.subplots()
    places = sorted({(r["n"], r["d"]) for r in records})
    names = list(dict.fromkeys(r["kernel"] for r in records))
    for i, name in enumerate(names):
        chosen = sorted((r for r in records if r["kernel"] == name), key=lambda r: (r["n"], r["d"]))
        spots = [place + (i - 1) * 0.27 for place in range(len(chosen))]
        axes.bar(spots, [over_plain(r) for r in chosen], width=0.25, label=name)
        for spot, r in zip(spots, chosen, strict=True):
            limit = OVER_PLAIN.get((r["n"], r["d"]), {}).get(name)
            if limit is not None:
                axes.hlines(limit, spot - 0.125, spot + 0.125, colors="black")
    axes.axhline(1, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xticks(range(len(places)), [f"{n} samples, d = {d}" for n, d in places])
    axes.set_ylabel("time / time by hand")
    axes.set_title("One loss with its gradient (dash: target)")
    axes.legend(loc="upper right")


if __name__ == "__main__":
    main(sys.modules[__name__])
