"""How far off are the linear-cost estimators, for how much less time?

Run it on an idle machine, with freed memory kept by the allocator, so that page faults are not what is timed:

    MALLOC_MMAP_THRESHOLD_=34359738368 MALLOC_TRIM_THRESHOLD_=34359738368 \
        python examples/benchmarks/estimator_error.py

Everything is compared with `mmd2` of the same samples, all unbiased, in float32 on one thread. Samples are normal, fake
ones 1.1 times as wide and shifted by 0.3, from seed 0. The random order in which blocks see them, and the frequencies
of Fourier features, come from the seeds 1, 2, ..., one for each round. Samples that do not make a whole block are left
out, and have no gradient then. All candidates are timed in turn, round after round, in one process; printed are medians
over the rounds of the process's CPU time, for value and gradient, and of three relative errors:

- of the value,
- of the gradient with respect to the samples, as the norm of all errors over the norm of the gradient,
- of the derivatives with respect to a shift of all fake samples: what one parameter that moves them all together sees.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses import Kernel, RationalQuadraticMix, RBFKernel, RBFMix, mmd2, mmd2_blocks, mmd2_fourier

DIMENSION = 16
BLOCK_SIZES = (2, 64, 256, 1024)
FREQUENCIES = (250, 1000, 4000)

Estimator = Callable[[Tensor, Tensor, int], Tensor]
"""Takes real scores, fake scores and a seed."""


class Result(NamedTuple):
    """What one estimator gave in one round."""

    seconds: float
    value: float
    gradient: Tensor


def kernels() -> dict[str, Kernel]:
    """Return kernels that suit the samples."""
    sigma = DIMENSION**0.5
    return {
        "RBF": RBFKernel(sigma),
        "5 RBF": RBFMix([sigma * factor for factor in (0.25, 0.5, 1, 2, 4)]),
        "5 RQ": RationalQuadraticMix(),
    }


def by_blocks(kernel: Kernel, size: int) -> Estimator:
    """Return the mean over blocks of the samples in a random order, without those that are left over."""

    def estimate(real: Tensor, fake: Tensor, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        kept = len(real) // size * size
        real, fake = (scores[torch.randperm(len(real), generator=generator)[:kept]] for scores in (real, fake))
        return mmd2_blocks(real, fake, kernel, block_size=size).value

    return estimate


def by_frequencies(kernel: Kernel, frequencies: int) -> Estimator:
    """Return the approximation by random Fourier features."""

    def estimate(real: Tensor, fake: Tensor, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return mmd2_fourier(real, fake, kernel, frequencies=frequencies, generator=generator)

    return estimate


def candidates(kernel: Kernel, n: int) -> dict[str, Estimator]:
    """Return the estimators to compare, the exact one first."""
    blocks = {f"blocks of {size}": by_blocks(kernel, size) for size in BLOCK_SIZES if 2 * size <= n}
    features = {f"{count} frequencies": by_frequencies(kernel, count) for count in FREQUENCIES}
    return {"mmd2": lambda real, fake, _: mmd2(real, fake, kernel)} | blocks | features


def run(estimate: Estimator, real: Tensor, fake: Tensor, seed: int) -> Result:
    """Return value, gradient and CPU seconds of one estimate."""
    real.grad = fake.grad = None
    start = time.process_time()
    value = estimate(real, fake, seed)
    value.backward()
    seconds = time.process_time() - start
    assert real.grad is not None
    assert fake.grad is not None
    return Result(seconds, value.item(), torch.cat([real.grad, fake.grad]))


def errors(result: Result, exact: Result) -> list[float]:
    """Return the relative errors of the value, of the gradient and of the derivatives along a shift of fake samples."""

    def relative(found: Tensor, wanted: Tensor) -> float:
        return ((found - wanted).norm() / wanted.norm()).item()

    shifts = [gradient.chunk(2)[1].sum(0, dtype=torch.float64) for gradient in (result.gradient, exact.gradient)]
    return [abs(result.value / exact.value - 1), relative(result.gradient, exact.gradient), relative(*shifts)]


def compare(estimators: dict[str, Estimator], real: Tensor, fake: Tensor, rounds: int) -> dict[str, list[float]]:
    """Return the median CPU seconds and errors of each estimator."""
    found: dict[str, list[list[float]]] = {name: [] for name in estimators}
    for seed in range(rounds + 1):  # the first round warms up
        exact = None
        for name, estimate in estimators.items():
            result = run(estimate, real, fake, seed)
            exact = exact or result
            if seed:
                found[name].append([result.seconds, *errors(result, exact)])
    return {name: [median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}


def main() -> None:
    """Print a table for each kernel."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument(
        "--samples", type=int, default=20_480, help="samples of each group (%(default)s, whole blocks of every size)"
    )
    reader.add_argument("--rounds", type=int, default=5, help="rounds to take medians of (%(default)s)")
    reader.add_argument("--kernels", nargs="*", choices=list(kernels()), help="only these kernels")
    options = reader.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    real = torch.randn(options.samples, DIMENSION).requires_grad_()
    fake = (1.1 * torch.randn(options.samples, DIMENSION) + 0.3).requires_grad_()
    print(f"{options.samples} samples of each group, d={DIMENSION}, medians of {options.rounds} rounds")
    print("kernel   estimator            time [ms]   mmd2/time   error of value   of gradient   of shift")
    for name, kernel in kernels().items():
        if options.kernels and name not in options.kernels:
            continue
        table = compare(candidates(kernel, options.samples), real, fake, options.rounds)
        for estimator, (seconds, *off) in table.items():
            ratio = table["mmd2"][0] / seconds
            columns = "{:16.1e} {:13.1e} {:10.1e}".format(*off)
            print(f"{name:8} {estimator:18} {seconds * 1e3:11.1f} {ratio:11.1f} {columns}", flush=True)


if __name__ == "__main__":
    main()
