"""Monitor a table for 60 days by the code of the page on two samples, and measure the time.

The reference has 5,000 rows of 12 columns in different units. From day 20 on, the variance of one column is 30 %
larger. From day 40 on, the correlation of two other columns has the opposite sign. An alarm is false with a probability
of at most 5 % for all days together.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from torch_mmd_losses import mmd_test

COLUMNS, DAYS, DAYS_BETWEEN_CHANGES = 12, 60, 20


def prepare(reference: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a function that standardises rows and leaves out constant columns."""
    varying = (reference != reference[0]).any(0)
    mean, std = reference.mean(0)[varying], reference.std(0)[varying]
    return lambda rows: (rows[:, varying] - mean) / std


def moments(z: Tensor) -> Tensor:
    """Return features whose means are means and variances."""
    return torch.cat([z, z.square()], 1)


def products(z: Tensor) -> Tensor:
    """Return a feature for each pair of columns; its mean is their correlation."""
    first, second = torch.triu_indices(z.shape[1], z.shape[1], 1)
    return z[:, first] * z[:, second]


def holm(p_values: Sequence[float], level: float) -> list[bool]:
    """Return which tests reject; any is wrong with a chance of at most level."""
    order = sorted(range(len(p_values)), key=lambda test: p_values[test])
    rejected = [False] * len(p_values)
    for rank, test in enumerate(order):
        if not p_values[test] <= level / (len(p_values) - rank):
            break
        rejected[test] = True
    return rejected


def alarms(x: Tensor, y: Tensor, level: float) -> list[bool]:
    """Return whether tests of all kinds, of moments and of pairs reject."""
    count = 2 * math.ceil(3 / level)  # twice the least that can reject
    each = [None, moments, products]
    tests = [mmd_test(x, y, features=f, permutations=count) for f in each]
    return holm([float(test.p_value) for test in tests], level)


def differing(samples: Sequence[tuple[Tensor, Tensor]], level: float = 0.05) -> list[int]:
    """Return the numbers of the pairs of samples whose means differ."""
    count = 2 * math.ceil(len(samples) / level)
    tests = [mmd_test(*pair, features=lambda z: z, permutations=count) for pair in samples]
    rejected = holm([float(test.p_value) for test in tests], level)
    return [number for number, differs in enumerate(rejected) if differs]


def changed_columns(x: Tensor, y: Tensor) -> list[int]:
    """Return the columns whose mean or variance has changed."""
    each = range(x.shape[1])
    return differing([(moments(x[:, [j]]), moments(y[:, [j]])) for j in each])


def changed_pairs(x: Tensor, y: Tensor) -> list[list[int]]:
    """Return the pairs of columns whose product has changed."""
    pairs = torch.triu_indices(x.shape[1], x.shape[1], 1).T.tolist()
    found = differing(list(zip(products(x).T, products(y).T, strict=True)))
    return [pairs[number] for number in found]


def rows(count: int, day: int, generator: Generator) -> Tensor:
    """Return rows of a day in different units."""
    found = torch.randn(count, COLUMNS, generator=generator)
    sign = 1 if day < 2 * DAYS_BETWEEN_CHANGES else -1
    found[:, 1] = sign * 0.6 * found[:, 0] + 0.8 * found[:, 1]
    if day >= DAYS_BETWEEN_CHANGES:
        found[:, 5] *= 1.3**0.5
    return found * torch.logspace(-2, 4, COLUMNS) + torch.linspace(0, 1000, COLUMNS)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Print the alarms and the time; return the seconds of processor time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, nargs="+", default=range(1, DAYS + 1), help="days to test (default all)")
    parser.add_argument("--reference-rows", type=int, default=5000, help="rows of the reference (default 5000)")
    parser.add_argument("--rows", type=int, default=300, help="rows of a day (default 300)")
    parser.add_argument("--pooled-days", type=int, default=1, help="days that one test takes together (default 1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the rows and of the permutations (default 0)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    generator = Generator().manual_seed(options.seed)
    reference = rows(options.reference_rows, 0, generator)
    standardise = prepare(reference)
    x = standardise(reference)
    testing: list[float] = []
    naming: list[float] = []
    for day in options.days:
        y = standardise(rows(options.pooled_days * options.rows, day, generator))
        start = time.process_time()
        found = alarms(x, y, 0.05 * options.pooled_days / DAYS)
        testing.append(time.process_time() - start)
        text = ", ".join(name for name, alarm in zip(("all kinds", "moments", "pairs"), found, strict=True) if alarm)
        if any(found):
            start = time.process_time()
            text += f"; columns {changed_columns(x, y)}, pairs {changed_pairs(x, y)}"
            naming.append(time.process_time() - start)
        print(f"day {day}: {text or 'no alarm'}", flush=True)
    seconds = {"tests": sum(testing) / len(testing), "names": sum(naming) / max(1, len(naming))}
    print(f"{seconds['tests']:.1f} s of processor time a day, {seconds['names']:.1f} s more after an alarm")
    return seconds


if __name__ == "__main__":
    main()
