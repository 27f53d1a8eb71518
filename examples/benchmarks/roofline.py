"""How many GPU hours should the papers' experiments take on one H100, by its roofline?

One whole step of each experiment (both networks, the loss, the spectral norm, Adam, the moving average) runs at its
real size with tensors that have a shape but no numbers. They are on the `meta` device, where the library calls the same
operators as on a GPU. Every operator that computes something is recorded: the FLOP of convolutions and matrix products,
and the bytes of all its arguments and results. The time of an operator is at least that of its FLOP at the peak of the
processor, and at least that of moving its bytes to and from memory. The time of a step is the sum over its operators. A
run of Wang et al. is 100,000 steps. A run of Arbel et al. is 150,000 iterations of five updates of the critic and one
of the generator. Assumptions:

* one H100 SXM by its data sheet, without sparsity: 3.35 TB/s, 494 TFLOP/s in TF32 for convolutions, as PyTorch does
  them in float32 unless told otherwise, and 67 TFLOP/s in float32 for everything else;
* operators are not fused, and nothing stays in a cache between operators: `torch.compile` does better than that;
* operators reach the peaks, which real kernels do not: a run takes longer, by a factor that was not measured;
* "with launches": no operator takes less than 4 us, about the cost of a kernel to the host in a step that is not a CUDA
  graph. For batches of 64 small images, this decides;
* ImageNet, on which Arbel et al. train with three GPUs, takes three H100 for these hours, without their communication.

The data are in memory when they are needed; logging, samples, checkpoints and tests of the samples are left out. The
sweep of Wang et al. is the 16 pairs of learning rates for each of the seven losses of Table 1, assumed to cost the
same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import arbel_step
import torch
import wang_step
from arbel_step import Arbel2018, ArbelStep
from common import Options, Record, main, markdown, progress
from counts import FREE
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from wang_step import Wang2019, WangStep

WANG, ARBEL = "Wang et al.", "Arbel et al."
EXPERIMENTS = [
    *((WANG, name, "mmd-rep-b") for name in ("cifar10", "stl10", "celeba", "lsun")),
    *((ARBEL, name, method) for name in ("cifar10", "celeba", "imagenet") for method in arbel_step.METHODS),
]
QUICK_WIDTH = 2
META = torch.device("meta")
RUNS_OF_TABLE_1 = 7 * 16

BANDWIDTH = 3.35e12
"""Bytes in a second."""
PEAK_CONVOLUTION, PEAK = 494e12, 67e12
"""FLOP in a second: of convolutions (TF32), and of everything else (float32)."""
LAUNCH = 4e-6
"""Seconds that an operator costs at least."""


class Operator(NamedTuple):
    """The work of one operator."""

    name: str
    flops: int
    bytes: int

    @property
    def seconds(self) -> float:
        """The least time on the GPU."""
        peak = PEAK_CONVOLUTION if "convolution" in self.name else PEAK
        return max(self.flops / peak, self.bytes / BANDWIDTH)


class _Operators(TorchDispatchMode):
    """Notes every operator that computes something."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[Operator] = []

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name not in FREE:
            count = flop_registry.get(func.overloadpacket)
            flops = int(count(*args, **(kwargs or {}), out_val=out)) if count else 0
            moved = sum(_bytes(x) for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor))
            self.found.append(Operator(name, flops, moved))
        return out


def _bytes(x: Tensor) -> int:
    # Expanded tensors are read once.
    return min(x.numel() * x.element_size(), x.untyped_storage().nbytes())


def operators(work: Callable[[], object]) -> list[Operator]:
    """Return the operators of a call."""
    with _Operators() as noted:
        work()
    return noted.found


def of_wang(name: str, options: Options) -> tuple[Wang2019, list[Operator]]:
    """Return the settings of an experiment of Wang et al., and the operators of a step."""
    settings = wang_step.PRESETS[name]
    settings = replace(settings, width=QUICK_WIDTH) if options.quick else settings
    # As on a GPU, Adam updates all parameters in a few operators.
    step = WangStep(settings, foreach=True, device=META)
    real = step.images()
    step(real)  # makes the states of Adam, and fills caches
    return settings, operators(lambda: step(real))


def of_arbel(name: str, options: Options) -> tuple[Arbel2018, list[Operator]]:
    """Return the same of Arbel et al.; the updates of the critic are all alike, so that one is noted."""
    settings = arbel_step.PRESETS[name]
    settings = replace(settings, width=QUICK_WIDTH) if options.quick else settings
    step = ArbelStep(settings, META)
    real = step.images()
    updates = (step.update_critic, step.update_generator)
    for update in updates:
        update(real)
    of_critic, of_generator = (operators(partial(update, real)) for update in updates)
    return settings, of_critic * settings.critic_steps + of_generator


def measure(options: Options) -> list[Record]:
    """Return a record for each experiment, times in seconds for one step."""
    records = []
    for paper, name, method in EXPERIMENTS[3:5] if options.quick else EXPERIMENTS:
        progress(name, method)
        settings, found = of_wang(name, options) if paper == WANG else of_arbel(f"{name}-{method}", options)
        records.append(
            {
                "paper": paper,
                "experiment": name,
                "method": method,
                "size": settings.size,
                "iterations": settings.iterations,
                "operators": len(found),
                "flops": sum(operator.flops for operator in found),
                "bytes": sum(operator.bytes for operator in found),
                "roofline": sum(operator.seconds for operator in found),
                "with_launches": sum(max(operator.seconds, LAUNCH) for operator in found),
            }
        )
    return records


def hours(record: Record, bound: str) -> float:
    """Return how long a run takes by one of the two bounds."""
    return float(record[bound] * record["iterations"] / 3600)


def table(records: list[Record]) -> str:
    """Return a line for each experiment."""
    rows = [
        [
            f"{r['paper']}, {r['experiment']}, {r['size']} px",
            r["method"],
            f"{r['flops'] / 1e9:.4g}",
            f"{r['bytes'] / 1e9:.3g}",
            str(r["operators"]),
            f"{r['roofline'] * 1e3:.2f}",
            f"{r['with_launches'] * 1e3:.2f}",
            f"{hours(r, 'roofline'):.2f}",
            f"{hours(r, 'with_launches'):.2f}",
            f"{hours(r, 'with_launches') * RUNS_OF_TABLE_1:.0f}" if r["paper"] == WANG else "",
        ]
        for r in records
    ]
    header = ["experiment", "method", "GFLOP", "GB", "operators", "roofline [ms]", "with launches [ms]"]
    return markdown([*header, "hours of a run", "with launches", "Table 1, with launches"], rows)


if __name__ == "__main__":
    main(sys.modules[__name__])
