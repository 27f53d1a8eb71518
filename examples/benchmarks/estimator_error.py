"""How far off are the linear-cost estimators, for how much less time?

Everything is compared with `mmd2` of the same samples, all unbiased, in float32 on one thread. The random order in
which blocks see the samples, and the frequencies of Fourier features, come from the seeds 1, 2, ..., one for each
round. Samples that do not make a whole block are left out, and have no gradient then. All candidates take turns, round
after round. The number of rounds is the same on every machine, so errors do not depend on its speed. The table has
medians over the rounds of the CPU time of the process, for value and gradient, and of three relative errors:

- of the value,
- of the gradient with respect to the samples, as the norm of all errors over the norm of the gradient,
- of the derivatives with respect to a shift of all fake samples, which is the gradient of a parameter that moves all of
  them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import torch
from by_hand import kernels, samples
from common import Options, Record, cpu_seconds, main, markdown, progress
from torch import Tensor

from torch_mmd_losses import Kernel, mmd2, mmd2_blocks, mmd2_fourier

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = (20_480, 16)  # whole blocks of every size
QUICK = (64, 2)
ROUNDS = 5
BLOCK_SIZES = (2, 64, 256, 1024)
FREQUENCIES = (250, 1000, 4000)

Estimator = Callable[[Tensor, Tensor, int], Tensor]
"""Takes real scores, fake scores and a seed."""


class Result(NamedTuple):
    """The results of one estimator in one round."""

    seconds: float
    value: float
    gradient: Tensor


class Errors(NamedTuple):
    """Relative errors of the value, of the gradient and of the derivatives along a shift of all fake samples."""

    value: float
    gradient: float
    shift: float


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


def candidates(kernel: Kernel, n: int) -> dict[tuple[str, int | None], Estimator]:
    """Return the estimators to compare by their family and its parameter, the exact one first."""
    return {
        ("mmd2", None): lambda real, fake, _: mmd2(real, fake, kernel),
        **{("blocks", size): by_blocks(kernel, size) for size in BLOCK_SIZES if 2 * size <= n},
        **{("frequencies", count): by_frequencies(kernel, count) for count in FREQUENCIES},
    }


def run(estimate: Estimator, real: Tensor, fake: Tensor, seed: int) -> Result:
    """Return value, gradient and CPU seconds of one estimate."""
    real.grad = fake.grad = None
    values = []

    def work() -> None:
        values.append(estimate(real, fake, seed))
        values[0].backward()

    seconds = cpu_seconds(work)
    assert real.grad is not None
    assert fake.grad is not None
    return Result(seconds, values[0].item(), torch.cat([real.grad, fake.grad]))


def errors(result: Result, exact: Result) -> Errors:
    """Return how far off a result is."""

    def relative(found: Tensor, wanted: Tensor) -> float:
        return ((found - wanted).norm() / wanted.norm()).item()

    shifts = [gradient.chunk(2)[1].sum(0, dtype=torch.float64) for gradient in (result.gradient, exact.gradient)]
    return Errors(abs(result.value / exact.value - 1), relative(result.gradient, exact.gradient), relative(*shifts))


def compare(kernel: Kernel, real: Tensor, fake: Tensor) -> list[Record]:
    """Return the median CPU seconds and errors of each estimator."""
    estimators = candidates(kernel, len(real))
    rounds: list[list[Record]] = []
    for seed in range(ROUNDS + 1):
        results = [run(estimate, real, fake, seed) for estimate in estimators.values()]
        rounds.append([{"seconds": r.seconds, **errors(r, results[0])._asdict()} for r in results])
    del rounds[0]  # it warmed up
    return [
        {"estimator": name, "parameter": parameter, **{key: median(r[key] for r in found) for key in found[0]}}
        for (name, parameter), found in zip(estimators, zip(*rounds, strict=True), strict=True)
    ]


def measure(options: Options) -> list[Record]:
    """Return a record for each kernel and estimator."""
    records: list[Record] = []
    for n, d in options.sizes([SIZE], [QUICK]):
        real, fake = samples(n, d, options.seed)
        for name, pair in kernels(d).items():
            progress(n, d, name)
            records += [{"n": n, "d": d, "kernel": name, **found} for found in compare(pair.ours, real, fake)]
    return records


def label(record: Record) -> str:
    """Return the name of an estimator with its parameter."""
    if record["estimator"] == "mmd2":
        return "`mmd2`"
    form = "blocks of {:,}" if record["estimator"] == "blocks" else "{:,} frequencies"
    return form.format(record["parameter"])


def table(records: list[Record]) -> str:
    """Return a line for each kernel and estimator."""
    rows = []
    for r in records:
        exact = next(e for e in records if (e["kernel"], e["estimator"]) == (r["kernel"], "mmd2"))
        cells = [f"{r['seconds'] * 1e3:.3g}", f"{exact['seconds'] / r['seconds']:.3g}"]
        off = [f"{100 * r[name]:.2g} %" if r is not exact else "" for name in Errors._fields]
        rows.append([f"{r['n']}, {r['d']}", r["kernel"], label(r), *cells, *off])
    header = ["samples, d", "kernel", "estimator", "time [ms]", "`mmd2` / time"]
    return markdown([*header, "error of the value", "of the gradient", "of a shift"], rows)


def draw(records: list[Record], figure: Figure) -> None:
    """Draw the errors of gradient and shift over the time, for each kernel."""
    names = list(dict.fromkeys(r["kernel"] for r in records))
    if not names:
        return
    for name, axes in zip(names, figure.subplots(1, len(names), sharey=True, squeeze=False)[0], strict=True):
        chosen = [r for r in records if r["kernel"] == name]
        for estimator, colour in (("blocks", "C0"), ("frequencies", "C1")):
            found = [r for r in chosen if r["estimator"] == estimator]
            for error, style in (("gradient", "-"), ("shift", "--")):
                points = [r["seconds"] * 1e3 for r in found], [r[error] for r in found]
                axes.plot(*points, style, color=colour, marker="o", markersize=4, label=f"{estimator}, {error}")
        exact = next(r for r in chosen if r["estimator"] == "mmd2")
        axes.axvline(exact["seconds"] * 1e3, color="grey", linestyle=":", label="mmd2")
        axes.set(xscale="log", yscale="log", xlabel="time [ms]", title=name)
        axes.label_outer()
    figure.axes[0].set_ylabel("relative error")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize="small")


if __name__ == "__main__":
    main(sys.modules[__name__])
