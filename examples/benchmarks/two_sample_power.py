"""Does another two-sample test find more differences, or take less time?

Each test gets the same samples and the same number of permutations. The table has the share of samples for which the
test rejects equality at a level of 0.05. For equal distributions this is the rate of errors, for different
distributions the power. One standard error of a share is at most 0.04, but the tests share their samples, so
differences between them are more accurate. Shares do not depend on the machine. Times are the CPU time of the process
for a test of equal distributions.

`mmd_test` runs with its default, the largest of five standardised MMD^2, with the statistic of MMD-FUSE and its default
kernels, and with the Gaussian kernel of alibi-detect, whose bandwidth is a median of the real samples. A peer that is
not installed is left out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial

import torch
from bare_import import bare
from common import Options, Record, main, markdown, medians, progress
from torch import Generator, Tensor

from torch_mmd_losses import RBFKernel, median_distance, mmd_test

POWER = ((100, 4),)
TIME = ((100, 4), (500, 4))
QUICK = ((6, 2),)
ROUNDS, QUICK_ROUNDS = 150, 2
PERMUTATIONS = 199
LEVEL = 0.05
DETECTOR = "alibi_detect.cd.pytorch.mmd"

Test = Callable[[Tensor, Tensor], bool]
"""Says of real and fake samples whether their distributions differ."""

Draw = Callable[[int, int, Generator], Tensor]
"""Draws fake samples `(n, d)`."""


def real_samples(n: int, d: int, generator: Generator) -> Tensor:
    """Return standard normal samples."""
    return torch.randn(n, d, generator=generator)


def moved(n: int, d: int, generator: Generator) -> Tensor:
    """Return samples whose mean is 0.5 away, in all directions together."""
    return real_samples(n, d, generator) + 0.5 / d**0.5


def scaled(n: int, d: int, generator: Generator) -> Tensor:
    """Return samples that are wider in all directions: less so in more of them, where the norm tells more."""
    return real_samples(n, d, generator) * (1 + 0.5 / d**0.5)


def correlated(n: int, d: int, generator: Generator) -> Tensor:
    """Return samples whose first two coordinates are correlated."""
    samples = real_samples(n, d, generator)
    samples[:, 1] = 0.8 * samples[:, 0] + 0.6 * samples[:, 1]
    return samples


def on_a_grid(n: int, d: int, generator: Generator) -> Tensor:
    """Return samples that are normal on a large scale and lie in clusters on a small one."""
    samples = real_samples(n, d, generator)
    return samples.round() + 0.15 * torch.randn(n, d, generator=generator)


def wavy(n: int, d: int, generator: Generator) -> Tensor:
    """Return samples whose first coordinate has the normal density times 1 + cos(4 x)."""
    candidates = real_samples(8 * n + 200, d, generator)
    kept = torch.rand(len(candidates), generator=generator) < (1 + torch.cos(4 * candidates[:, 0])) / 2
    return candidates[kept][:n]


def of_two_scales(n: int, d: int, generator: Generator) -> Tensor:
    """Return samples of the same variance, half of them of a small scale."""
    small = torch.rand(n, 1, generator=generator) < 0.5
    return real_samples(n, d, generator) * torch.where(small, 0.5, 1.75**0.5)


def with_outliers(n: int, d: int, generator: Generator) -> Tensor:
    """Return samples a tenth of which are three times as far out."""
    outlier = torch.rand(n, 1, generator=generator) < 0.1
    return real_samples(n, d, generator) * torch.where(outlier, 3.0, 1.0)


ALTERNATIVES: dict[str, Draw] = {
    "none": real_samples,
    "mean": moved,
    "scale": scaled,
    "correlation": correlated,
    "clusters": on_a_grid,
    "waves": wavy,
    "two scales": of_two_scales,
    "outliers": with_outliers,
}


def median_bandwidth(real: Tensor) -> float:
    """Return the bandwidth of alibi-detect: the median distance between real samples over the root of two."""
    return median_distance(real) / 2**0.5


def ours(real: Tensor, fake: Tensor) -> bool:
    """Return the verdict of this library with its default kernel."""
    return bool(mmd_test(real, fake, permutations=PERMUTATIONS).p_value <= LEVEL)


def fused(real: Tensor, fake: Tensor) -> bool:
    """Return the verdict of this library with the statistic of MMD-FUSE."""
    return bool(mmd_test(real, fake, statistic="fuse", permutations=PERMUTATIONS).p_value <= LEVEL)


def ours_with_its_kernel(real: Tensor, fake: Tensor) -> bool:
    """Return the verdict of this library with the kernel of alibi-detect."""
    kernel = RBFKernel(median_bandwidth(real))
    return bool(mmd_test(real, fake, kernel, permutations=PERMUTATIONS).p_value <= LEVEL)


def alibi_detect(real: Tensor, fake: Tensor) -> bool:
    """Return the verdict of alibi-detect's detector of drift, with its default kernel."""
    detector = bare(DETECTOR).MMDDriftTorch
    p_value, _, _ = detector(real.numpy(), n_permutations=PERMUTATIONS, device="cpu").score(fake.numpy())
    return bool(p_value < LEVEL)


def tests() -> dict[str, Test]:
    """Return the tests that can be run here, this library's first."""
    found: dict[str, Test] = {
        "`mmd_test`": ours,
        "`mmd_test`, fuse": fused,
        "`mmd_test`, same kernel": ours_with_its_kernel,
    }
    try:
        bare(DETECTOR)
    except ModuleNotFoundError:
        return found
    return found | {"alibi-detect": alibi_detect}


def powers(n: int, d: int, rounds: int, seed: int) -> list[Record]:
    """Return how often each test says that distributions differ, for each alternative."""
    records: list[Record] = []
    for alternative, draw in ALTERNATIVES.items():
        progress(n, d, alternative)
        generator = torch.Generator().manual_seed(seed)
        pairs = [(real_samples(n, d, generator), draw(n, d, generator)) for _ in range(rounds)]
        for name, test in tests().items():
            torch.manual_seed(seed)
            share = sum(test(*pair) for pair in pairs) / rounds
            records.append({"n": n, "d": d, "alternative": alternative, "test": name, "share": share})
    return records


def times(n: int, d: int, options: Options) -> list[Record]:
    """Return the CPU time of each test."""
    progress(n, d, "time")
    generator = torch.Generator().manual_seed(options.seed)
    real, fake = real_samples(n, d, generator), real_samples(n, d, generator)
    candidates = {name: partial(test, real, fake) for name, test in tests().items()}
    found = medians(candidates, options.seconds)
    return [{"n": n, "d": d, "test": name, "seconds": seconds} for name, seconds in found.items()]


def measure(options: Options) -> list[Record]:
    """Return the records of powers, then those of times."""
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    records = [r for n, d in options.sizes(POWER, QUICK) for r in powers(n, d, rounds, options.seed)]
    return records + [r for n, d in options.sizes(TIME, QUICK) for r in times(n, d, options)]


def table(records: list[Record]) -> str:
    """Return a table of the shares and one of the times."""
    names = list(dict.fromkeys(r["test"] for r in records))

    def lines(chosen: Sequence[Record], key: Sequence[str], cell: Callable[[Record], str]) -> list[list[str]]:
        rows: dict[tuple[object, ...], list[str]] = {}
        for r in chosen:
            size, *rest = f"{r['n']}, {r['d']}", *(r[name] for name in key)
            rows.setdefault((size, *rest), []).append(cell(r))
        return [[*map(str, first), *cells] for first, cells in rows.items()]

    shares = lines([r for r in records if "share" in r], ("alternative",), lambda r: f"{r['share']:.3f}")
    taken = lines([r for r in records if "seconds" in r], (), lambda r: f"{r['seconds'] * 1e3:.3g}")
    return "\n\n".join(
        [
            markdown(["samples, d", "difference", *names], shares),
            markdown(["samples, d", *(f"{name} [ms]" for name in names)], taken),
        ]
    )


if __name__ == "__main__":
    main(sys.modules[__name__])
