"""How long do a loss and its gradient take, beside plain autograd and a hinge loss?

Run it on an idle machine, with freed memory kept by the allocator, so that page faults are not what is timed:

    MALLOC_MMAP_THRESHOLD_=34359738368 MALLOC_TRIM_THRESHOLD_=34359738368 \
        python examples/benchmarks/loss_time.py

All candidates of a line are timed in turn, round after round, in one process and on one thread; what is printed are
medians of the process's CPU time, and their ratios. "Plain" is the biased MMD^2 from three Gram matrices with autograd,
as one writes it by hand. Sizes are (samples of each group, score dimension).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from torch_mmd_losses import Kernel, MMDLoss, RationalQuadraticMix, RBFKernel, RBFMix, mmd2

SIZES = ((64, 16), (256, 16), (1024, 128), (4096, 128))
ALPHAS = (0.2, 0.5, 1.0, 2.0, 5.0)
SPREAD = (0.25, 0.5, 1.0, 2.0, 4.0)

Loss = Callable[[Tensor, Tensor], Tensor]


def kernels(d: int) -> dict[str, tuple[Kernel, Callable[[Tensor], Tensor]]]:
    """Return kernels that suit normal scores of dimension `d`, each with the same function of squared distances."""
    sigmas = [d**0.5 * factor for factor in SPREAD]

    def mixture(sq_dist: Tensor) -> Tensor:
        return torch.stack([torch.exp(-sq_dist / (2 * sigma**2)) for sigma in sigmas]).sum(0)

    def quadratic(sq_dist: Tensor) -> Tensor:
        return torch.stack([(1 + sq_dist / (2 * alpha)) ** -alpha for alpha in ALPHAS]).sum(0)

    return {
        "RBF": (RBFKernel(d**0.5), lambda sq_dist: torch.exp(-sq_dist / (2 * d))),
        "5 RBF": (RBFMix(sigmas), mixture),
        "5 RQ": (RationalQuadraticMix(ALPHAS), quadratic),
    }


def plain(kernel: Callable[[Tensor], Tensor]) -> Loss:
    """Return MMD^2 by autograd through three Gram matrices."""

    def mean(a: Tensor, b: Tensor) -> Tensor:
        sq_dist = a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T
        return kernel(sq_dist.clamp_min(0)).mean()

    return lambda real, fake: mean(real, real) - 2 * mean(real, fake) + mean(fake, fake)


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """Return the hinge loss of a discriminator."""
    return torch.relu(1 - real).mean() + torch.relu(1 + fake).mean()


def candidates(kernel: Kernel, by_hand: Callable[[Tensor], Tensor]) -> dict[str, Loss]:
    """Return the losses to time."""
    loss = MMDLoss(kernel, estimator="biased")
    return {
        "plain": plain(by_hand),
        "mmd2": lambda real, fake: mmd2(real, fake, kernel, estimator="biased"),
        "both": lambda real, fake: torch.stack(loss.both(real, fake)).sum(),
        "hinge": hinge,
    }


def medians(losses: dict[str, Loss], real: Tensor, fake: Tensor, rounds: int) -> dict[str, float]:
    """Return the median CPU seconds of each loss with its gradient."""
    times: dict[str, list[float]] = {name: [] for name in losses}
    for _ in range(rounds + 2):
        for name, loss in losses.items():
            real.grad = fake.grad = None
            start = time.process_time()
            loss(real, fake).backward()
            times[name].append(time.process_time() - start)
    return {name: median(values[2:]) for name, values in times.items()}


def main() -> None:
    """Print a line for each kernel and size."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--seconds", type=float, default=5.0, help="about how long to time each line (%(default)s)")
    reader.add_argument("--sizes", type=int, nargs="*", help="only these numbers of samples")
    options = reader.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("size          kernel    mmd2 [ms]   mmd2/plain   both/(2 plain)   mmd2/hinge")
    for n, d in SIZES:
        if options.sizes and n not in options.sizes:
            continue
        real = torch.randn(n, d).requires_grad_()
        fake = (1.1 * torch.randn(n, d) + 0.3).requires_grad_()
        for name, pair in kernels(d).items():
            losses = candidates(*pair)
            once = sum(medians(losses, real, fake, 1).values())
            took = medians(losses, real, fake, max(5, int(options.seconds / once)))
            print(
                f"({n:4}, {d:3})  {name:7} {took['mmd2'] * 1e3:10.3f} {took['mmd2'] / took['plain']:12.2f} "
                f"{took['both'] / took['plain'] / 2:16.2f} {took['mmd2'] / took['hinge']:12.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
