"""How many operators, bytes and floating-point operations does a loss with its gradient take?

Counts are the same on every machine and in every run, so tests can check them. On a GPU, the time of a small loss is
the time to launch its kernels, so it is proportional to their number.

The counts are those of one forward and backward pass, after a first pass that filled the caches:

* **operators**: calls that reach PyTorch's dispatcher below autograd and compute something. Views (`as_strided`, `t`,
  `transpose`, `expand`, `select`, `slice`, `detach`, `alias`, `view`, `unsqueeze` and their kind) and allocations
  (`empty` and its kind) launch nothing on a GPU and are not counted.
* **profiled**: the number of operators according to the profiler, as a check: operators that are not views or
  allocations and call no other such operator. It differs by the few operators with two steps, such as a sum that first
  sets zero.
* **bytes**: the storage of all results that share none with an argument, freed or not. Scratch memory inside an
  operator is not counted.
* **FLOP**: of matrix products, two for each multiplication and addition; elementwise operators are not counted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from by_hand import Loss, Pair, hinge, kernels, plain, samples, step
from common import Options, Record, Target, main, markdown, progress
from torch import Tensor
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from torch_mmd_losses import MMDLoss, mmd2

SIZES = ((64, 16), (1024, 128))
QUICK = ((8, 2),)
MOST_OPERATORS = 20

VIEWS = (
    "alias as_strided chunk detach diagonal expand expand_as flatten lift_fresh movedim narrow numpy_T permute reshape "
    "reshape_as select slice split split_with_sizes squeeze swapaxes t transpose unbind unflatten unsqueeze view "
    "view_as _unsafe_view _reshape_alias"
)
ALLOCATIONS = "empty empty_like empty_strided new_empty new_empty_strided resize_ set_"
CHECKS = "contiguous result_type resolve_conj resolve_neg to"
FREE = frozenset(f"{VIEWS} {ALLOCATIONS} {CHECKS}".split())
"""Operators that launch nothing on a GPU: views, allocations, and checks whether another operator has to be called."""


class Counts(NamedTuple):
    """The cost of one forward and backward pass."""

    operators: int
    bytes: int
    flops: int


class _Dispatched(TorchDispatchMode):
    """Counts operators and the bytes of their new results."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators = 0
        self.bytes = 0

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Run an operator and count it."""
        result = func(*args, **(kwargs or {}))
        self.operators += func.overloadpacket.__name__ not in FREE
        known = {_storage(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and _storage(tensor) not in known:
                known.add(_storage(tensor))
                self.bytes += tensor.untyped_storage().nbytes()
        return result


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _in_place_product(_: object, a: tuple[int, ...], b: tuple[int, ...], **__: object) -> int:
    return 2 * a[0] * a[1] * b[1]


def count(work: Callable[[], object]) -> Counts:
    """Return the cost of a call of `work` after a first call."""
    work()
    with _Dispatched() as dispatched:
        work()
    # The counter of PyTorch does not know the products that add to a result in place.
    products = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _in_place_product})
    with products:
        work()
    return Counts(dispatched.operators, dispatched.bytes, products.get_total_flops())


def profiled_operators(work: Callable[[], object]) -> int:
    """Return the number of operators that compute and call no other that does, as the profiler sees a second call."""
    work()
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiled:
        work()

    def computes(event: FunctionEvent) -> bool:
        return event.name.startswith("aten::") and event.name.removeprefix("aten::") not in FREE

    def deeper(event: FunctionEvent) -> bool:
        return any(computes(child) or deeper(child) for child in event.cpu_children)

    return sum(computes(event) and not deeper(event) for event in profiled.events() or ())


def candidates(pair: Pair) -> dict[str, Loss]:
    """Return the losses to count."""
    loss = MMDLoss(pair.ours)
    return {
        "mmd2": lambda real, fake: mmd2(real, fake, pair.ours),
        "both": lambda real, fake: torch.stack(loss.both(real, fake)).sum(),
        "plain": plain(pair.by_hand),
        "hinge": hinge,
    }


def work(n: int, d: int, kernel: str, loss: str = "mmd2", seed: int = 0) -> Callable[[], None]:
    """Return a loss with its gradient for `n` real and `n` fake scores of dimension `d`."""
    return step(candidates(kernels(d)[kernel])[loss], *samples(n, d, seed))


def measure(options: Options) -> list[Record]:
    """Return a record for each size, kernel and loss."""
    records = []
    for n, d in options.sizes(SIZES, QUICK):
        progress(n, d)
        for kernel, pair in kernels(d).items():
            for loss in candidates(pair):
                record = {"n": n, "d": d, "kernel": kernel, "loss": loss}
                job = work(n, d, kernel, loss, options.seed)
                profiled = profiled_operators(job) if loss == "mmd2" else None
                records.append({**record, **count(job)._asdict(), "profiled": profiled})
    return records


def table(records: list[Record]) -> str:
    """Return a line for each size, kernel and loss."""
    rows = []
    for r in records:
        name = f"`{r['loss']}`" if r["loss"] in ("mmd2", "both") else r["loss"]
        numbers = [str(r["operators"]), str(r["profiled"] or ""), f"{r['bytes'] / 1e6:.3g}", f"{r['flops'] / 1e6:.4g}"]
        rows.append([f"{r['n']}, {r['d']}", r["kernel"], name, *numbers])
    return markdown(["samples, d", "kernel", "loss", "operators", "profiled", "allocated [MB]", "MFLOP"], rows)


def targets(records: list[Record]) -> list[Target]:
    """Return the promised number of operators."""
    found = {r["kernel"]: r["operators"] for r in records if (r["n"], r["d"], r["loss"]) == (64, 16, "mmd2")}
    return [Target("operators of `mmd2` and its gradient, (64, 16), RBF", MOST_OPERATORS, found.get("RBF"))]


if __name__ == "__main__":
    main(sys.modules[__name__])
