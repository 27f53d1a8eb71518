"""How long does a two-sample test of large samples take?

The table has the CPU time of the process for `mmd_test` with 999 permutations, on one thread. Both groups have the same
number of samples, from normal distributions in `d` dimensions: equal distributions, or distributions whose means are
0.5 apart. Equal distributions take longer, since more permutations have a statistic close to the observed one and are
recomputed in float64. A second table has the times with 1000 features of the one kernel, which do not depend on the
distributions. `--largest` adds 30,000 samples per group with all pairs, which takes minutes.
"""

from __future__ import annotations

import sys
from functools import partial

import torch
from common import Options, Record, cpu_seconds, main, markdown, progress

from torch_mmd_losses import Kernel, RBFKernel, mmd_test

SIZES = ((1000, 16), (4000, 16), (10_000, 16))
LARGEST = (30_000, 16)
QUICK = ((20, 2),)
FEATURE_SIZES = ((10_000, 16), (100_000, 16))
FEATURE_COUNT, QUICK_FEATURE_COUNT = 1000, 10
PERMUTATIONS, QUICK_PERMUTATIONS = 999, 199
DISTANCES = {"equal": 0.0, "different": 0.5}
"""Distances between the means."""


def kernels(d: int) -> dict[str, Kernel | None]:
    """Return the default, which stands for five kernels, and one Gaussian kernel."""
    return {"five kernels": None, "one kernel": RBFKernel(d**0.5)}


def measure(options: Options) -> list[Record]:
    """Return the time of a test for each size, kernel and pair of distributions."""
    permutations = QUICK_PERMUTATIONS if options.quick else PERMUTATIONS
    records: list[Record] = []
    for n, d in options.sizes((*SIZES, LARGEST) if options.largest else SIZES, QUICK):
        for name, kernel in kernels(d).items():
            for distributions, distance in DISTANCES.items():
                progress(n, d, name, distributions)
                generator = torch.Generator().manual_seed(options.seed)
                real, fake = (torch.randn(n, d, generator=generator) for _ in range(2))
                fake = fake + distance / d**0.5
                test = partial(mmd_test, real, fake, kernel, permutations=permutations, generator=generator)
                seconds = cpu_seconds(test)
                records.append({"n": n, "d": d, "kernel": name, "distributions": distributions, "seconds": seconds})
    return records + with_features(options, permutations)


def with_features(options: Options, permutations: int) -> list[Record]:
    """Return the time of a test on features for each size and kind."""
    records: list[Record] = []
    feature_count = QUICK_FEATURE_COUNT if options.quick else FEATURE_COUNT
    for n, d in options.sizes(FEATURE_SIZES, QUICK):
        for features in ("fourier", "nystrom"):
            progress(n, d, features)
            generator = torch.Generator().manual_seed(options.seed)
            real, fake = (torch.randn(n, d, generator=generator) for _ in range(2))
            test = partial(mmd_test, real, fake, RBFKernel(d**0.5), features=features, feature_count=feature_count)
            seconds = cpu_seconds(partial(test, permutations=permutations, generator=generator))
            records.append({"n": n, "d": d, "features": features, "feature_count": feature_count, "seconds": seconds})
    return records


def table(records: list[Record]) -> str:
    """Return a line for each size of the tests on all pairs, and of those on features."""
    return "\n\n".join(
        [on_pairs([r for r in records if "kernel" in r]), on_features([r for r in records if "features" in r])]
    )


def on_features(records: list[Record]) -> str:
    """Return a line for each size."""
    names = list(dict.fromkeys(r["features"] for r in records))
    rows: dict[str, list[str]] = {}
    for r in records:
        rows.setdefault(f"{r['n']}, {r['d']}", []).append(f"{r['seconds']:.3g}")
    return markdown(
        ["samples a group, d", *(f"{name} features [s]" for name in names)], [[k, *v] for k, v in rows.items()]
    )


def on_pairs(records: list[Record]) -> str:
    """Return a line for each size."""
    columns = list(dict.fromkeys((r["kernel"], r["distributions"]) for r in records))
    rows: dict[str, list[str]] = {}
    for r in records:
        rows.setdefault(f"{r['n']}, {r['d']}", []).append(f"{r['seconds']:.3g}")
    header = ["samples a group, d", *(f"{kernel}, {distributions} [s]" for kernel, distributions in columns)]
    return markdown(header, [[size, *cells] for size, cells in rows.items()])


if __name__ == "__main__":
    main(sys.modules[__name__])
