"""How much time and memory does a trained kernel take, compared with a fixed one?

Each line is one loss with its gradient with respect to both groups of scores and all parameters of the kernel. It runs
in a separate process, which also measures its memory (see `memory`).

* "own kernel" is a Gaussian with a bandwidth that is a parameter, as users write it, differentiated by autograd.
* "network of the distance" multiplies a Gaussian by a network with 8 hidden units of the distance.
* "network of the scores" is a Gaussian of features: `forward` maps the scores through two layers, again for each tile.
* "mmd2_and_variance" is the objective for training a kernel for the power of a test.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import torch
from by_hand import ALPHAS, bandwidths, samples
from common import Options, Record, Target, main, markdown, printed_by, progress
from memory import Peak, peak
from torch import Tensor, nn

from torch_mmd_losses import Kernel, RationalQuadraticMix, RBFKernel, RBFMix, mmd2, mmd2_and_variance

SIZES = ((4096, 64), (16384, 64))
QUICK = ((40, 2),)
WARM_UP = 600
"""Samples of the run that loads code: enough for the path that large samples take."""
TIME, MEMORY = 3.0, 1.5
"""The largest ratios to a fixed kernel that are promised."""


class Own(Kernel):
    """A kernel with a trained bandwidth, as users write their own."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.log_sigma = nn.Parameter(torch.tensor(sigma).log())

    def from_sq_dist(self, sq_dist: Tensor) -> Tensor:
        """Return the kernel's values."""
        return torch.exp(sq_dist * (-0.5 * torch.exp(-2 * self.log_sigma)))


class OfDistance(Own):
    """A kernel with a small network of the squared distance."""

    def __init__(self, sigma: float) -> None:
        super().__init__(sigma)
        self.net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))

    def from_sq_dist(self, sq_dist: Tensor) -> Tensor:
        """Return the kernel's values."""
        return super().from_sq_dist(sq_dist) * self.net(sq_dist.unsqueeze(-1)).squeeze(-1).exp()


class OfScores(Kernel):
    """A Gaussian kernel of features."""

    def __init__(self, d: int, sigma: float) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(d, d), nn.Tanh(), nn.Linear(d, d))
        self.base = RBFKernel(sigma / 4, trainable=True)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the kernel's values."""
        return self.base(self.net(a), self.net(b))


def variance(real: Tensor, fake: Tensor, kernel: Kernel) -> Tensor:
    """Return the quantity that the power of a test depends on."""
    return torch.stack(mmd2_and_variance(real, fake, kernel)).sum()


Loss = Callable[[Tensor, Tensor, Kernel], Tensor]


def jobs(d: int) -> dict[str, tuple[str, Loss, Callable[[], Kernel]]]:
    """Return each comparison by name: the name of the fixed kernel, the loss and the kernel."""
    (sigma,), sigmas = bandwidths(d)["RBF"], bandwidths(d)["5 RBF"]
    return {
        "RBF": ("RBF", mmd2, lambda: RBFKernel(sigma)),
        "RBF, trainable": ("RBF", mmd2, lambda: RBFKernel(sigma, trainable=True)),
        "own kernel": ("RBF", mmd2, lambda: Own(sigma)),
        "network of the scores": ("RBF", mmd2, lambda: OfScores(d, sigma)),
        "network of the distance": ("RBF", mmd2, lambda: OfDistance(sigma)),
        "5 RBF": ("5 RBF", mmd2, lambda: RBFMix(sigmas)),
        "5 RBF, trainable": ("5 RBF", mmd2, lambda: RBFMix(sigmas, trainable=True)),
        "5 RQ": ("5 RQ", mmd2, lambda: RationalQuadraticMix(ALPHAS)),
        "5 RQ, trainable": ("5 RQ", mmd2, lambda: RationalQuadraticMix(ALPHAS, trainable=True)),
        "mmd2_and_variance, RBF": ("mmd2_and_variance, RBF", variance, lambda: RBFKernel(sigma)),
        "mmd2_and_variance, RBF, trainable": (
            "mmd2_and_variance, RBF",
            variance,
            lambda: RBFKernel(sigma, trainable=True),
        ),
    }


LARGE = ("RBF", "RBF, trainable", "own kernel", "network of the scores", "5 RBF", "5 RBF, trainable")
"""The kernels that are measured at the largest size."""

SMALL = ("RBF", "network of the distance", "5 RQ", "5 RQ, trainable", *(f"mmd2_and_variance, {x}" for x in LARGE[:2]))
"""The kernels that are measured at the smaller size, because the larger one would take minutes."""


def peak_of(job: str, n: int, d: int, seed: int) -> Peak:
    """Return the time and memory of a job, measured in this process, which should be a new process."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    _, loss, make = jobs(d)[job]
    kernel = make()

    def work(real: Tensor, fake: Tensor) -> None:
        torch.autograd.grad(loss(real, fake, kernel), [real, fake, *kernel.parameters()])

    work(*samples(WARM_UP, d, seed))
    real, fake = samples(n, d, seed)
    return peak(lambda: work(real, fake))


def in_new_process(job: str, n: int, d: int, seed: int) -> Peak:
    """Return the time and memory of a job, measured in a new process with the default allocator."""
    return Peak(*printed_by(__file__, job, n, d, seed))


def measure(options: Options) -> list[Record]:
    """Return a record for each job and size."""
    records: list[Record] = []
    for n, d in options.sizes(SIZES, QUICK):
        for job, (fixed, _, _) in jobs(d).items():
            if options.quick or job in (LARGE if n == SIZES[-1][0] else SMALL):
                progress(n, d, job)
                run = peak_of if options.quick else in_new_process
                found = run(job, n, d, options.seed)
                records.append({"n": n, "d": d, "job": job, "fixed": fixed, **found._asdict()})
    return records


def ratios(records: list[Record]) -> dict[tuple[str, int], tuple[float, float]]:
    """Return time and memory of each trained kernel over those of the fixed one, by job and number of samples."""
    found = {(r["job"], r["n"]): r for r in records}
    result = {}
    for (job, n), record in found.items():
        fixed = found[record["fixed"], n]
        if job != record["fixed"]:
            result[job, n] = (record["seconds"] / fixed["seconds"], record["bytes"] / max(fixed["bytes"], 1.0))
    return result


def table(records: list[Record]) -> str:
    """Return a line for each job and size."""
    over = ratios(records)
    rows = []
    for r in records:
        time, memory = (f"{ratio:.2f}" for ratio in over[r["job"], r["n"]]) if (r["job"], r["n"]) in over else ("", "")
        rows.append([f"{r['n']}, {r['d']}", r["job"], f"{r['seconds']:.3g}", time, f"{r['bytes'] / 1e6:.0f}", memory])
    return markdown(["samples, d", "kernel", "time [s]", "/ fixed", "memory [MB]", "/ fixed"], rows)


def targets(records: list[Record]) -> list[Target]:
    """Return the promised ratios at the largest size."""
    over, n = ratios(records), SIZES[-1][0]
    result = []
    for job in ("RBF, trainable", "own kernel", "5 RBF, trainable"):
        time, memory = over.get((job, n), (None, None))
        result.append(Target(f"time, trained kernel / fixed, {SIZES[-1]}, {job}", TIME, time))
        result.append(Target(f"memory, trained kernel / fixed, {SIZES[-1]}, {job}", MEMORY, memory))
    return result


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(peak_of(*json.loads(sys.argv[2]))))
    else:
        main(sys.modules[__name__])
