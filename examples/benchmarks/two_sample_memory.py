"""Time and memory of `mmd_test` on features with five kernels, the default, and of one test of many samples.

    python examples/benchmarks/two_sample_memory.py            # five kernels, 10,000 samples in each group
    python examples/benchmarks/two_sample_memory.py 100000     # one kernel: the growth of the process

The samples are standard normal in 16 dimensions, with seed 0, on one thread. Each size needs a process of its own,
since the growth is that of the peak.
"""

from __future__ import annotations

import resource
import sys
import time

import torch

from torch_mmd_losses import RBFKernel, mmd_test

DIMENSION = 16


def peak() -> float:
    """Return the peak resident size of this process in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main(arguments: list[str]) -> None:
    """Print the times of five kernels, or the growth for a number of samples in each group."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    real, fake = torch.randn(2, int(arguments[0]) if arguments else 10_000, DIMENSION)
    before = peak()
    if arguments:
        mmd_test(real, fake, RBFKernel(4.0), features="nystrom")
        print(f"{len(real):,} samples in each group: {peak() - before:.2f} GB")
        return
    for features in ("nystrom", "fourier"):
        start = time.process_time()
        mmd_test(real, fake, features=features)
        print(f"five kernels, {features}: {time.process_time() - start:.1f} CPU s")


if __name__ == "__main__":
    main(sys.argv[1:])
