"""How long do the forms of MMD in one-step generation take, compared with the usual dense code?

Each part of the question in `PARTS` is a function that measures and a function that makes a table of its records. A
record names its part.

"Batched autograd" is the usual hand-written code for many groups: three batched matrix products for the distances, the
exponential, means, and autograd. "Loop" is `mmd2` for each group. Times are those of value and gradient with respect to
the fake samples, for a Gaussian kernel. geomloss is called with whole batches of groups, and left out if it is not
installed.

For large groups, "products alone" is the time of the matrix products that every gradient needs, each pair once, in
strips that fit into the cache. It is a limit for all code that uses the same library for these products.

Dense code for fields makes whole matrices of the pairs in float32; the table has their size. The library needs the
memory of a tile, or of at most 32 tiles where that saves a second computation of the distances. It computes in float32
where the error is below 1e-5 of the sum of absolute terms. Dense code does not check this.

For gradient caching, the network has eight layers of 512 units. The activations kept are the largest number of bytes
that autograd stores at a time, without parameters.

Freed memory is kept here, as in all benchmarks. Groups are also timed in new processes with the default allocator, as
users have it: each Gram matrix of batched autograd is then new memory. The targets are for that.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import modern_caching
import modern_fields
import torch
from common import Options, Record, Target, main, markdown, medians, printed_by, progress
from torch import Tensor

from torch_mmd_losses import RBFKernel, grouped_mmd2, mmd2

Loss = Callable[[Tensor, Tensor], Tensor]
"""A function of real samples `(groups, n, d)` and fake samples, one value for each group."""

GROUPS = ((256, 4, 3072), (256, 64, 256), (64, 512, 64))
QUICK_GROUPS = ((3, 4, 5), (2, 300, 2))

OVER_AUTOGRAD = {(256, 4, 3072): 1.0, (256, 64, 256): 1.0, (64, 512, 64): 0.35}
"""The largest share of the time of batched autograd, for each number of groups, samples and dimensions."""


class Part(NamedTuple):
    """One part of the question."""

    measure: Callable[[Options], list[Record]]
    table: Callable[[list[Record]], str]
    targets: Callable[[list[Record]], list[Target]]


def batched_autograd(sigma: float) -> Loss:
    """Return the biased MMD^2 of each group by batched matrix products and autograd."""

    def mean(a: Tensor, b: Tensor) -> Tensor:
        squares = a.square().sum(2, keepdim=True) + b.square().sum(2).unsqueeze(1)
        return torch.exp(torch.baddbmm(squares, a, b.mT, alpha=-2) * (-0.5 / sigma**2)).mean((1, 2))

    return lambda real, fake: mean(real, real) - 2 * mean(real, fake) + mean(fake, fake)


def losses_of_groups(sigma: float) -> dict[str, Loss]:
    """Return the losses to time."""
    kernel = RBFKernel(sigma)

    def loop(real: Tensor, fake: Tensor) -> Tensor:
        pairs = zip(real.unbind(), fake.unbind(), strict=True)
        return torch.stack([mmd2(x, y, kernel, estimator="biased") for x, y in pairs])

    found: dict[str, Loss] = {
        "ours": lambda real, fake: grouped_mmd2(real, fake, kernel),
        "loop": loop,
        "autograd": batched_autograd(sigma),
    }
    try:
        geomloss: Any = importlib.import_module("geomloss")
    except ImportError:
        return found
    half: Any = geomloss.SamplesLoss("gaussian", blur=sigma, backend="tensorized")
    return found | {"geomloss": lambda real, fake: 2 * half(real, fake)}


def products_alone(groups: int, n: int, d: int) -> Callable[[], None]:
    """Return the matrix products of values, and of gradients of fake samples, for groups of `n` + `n` scores."""
    left, right, scores = torch.randn(2 * n, d + 2), torch.randn(2 * n, d + 2), torch.randn(2 * n, d)
    height = 128

    def run() -> None:
        for _ in range(groups):
            for top in range(0, n, height):
                left[top : top + height] @ right[top:n].T  # distances within the real samples
            for top in range(n, 2 * n, height):
                rows = slice(top, top + height)
                (left[rows] @ right[:n].T) @ scores[:n]  # distances from the real samples, and their gradients
                within = left[rows] @ right[top:].T
                within @ scores[top:]
                within[:, height:].T @ scores[rows]

    return run


def seconds_of_groups(groups: int, n: int, d: int, seed: int, seconds: float) -> dict[str, float]:
    """Return the time of each loss with its gradient, for groups of `n` + `n` scores."""
    generator = torch.Generator().manual_seed(seed)
    real = torch.randn(groups, n, d, generator=generator)
    fake = (1.1 * torch.randn(groups, n, d, generator=generator) + 0.1).requires_grad_()

    def step(loss: Loss) -> Callable[[], None]:
        def run() -> None:
            fake.grad = None
            loss(real, fake).sum().backward()

        return run

    steps = {name: step(loss) for name, loss in losses_of_groups(d**0.5).items()}
    if n > d:
        steps["products"] = products_alone(groups, n, d)
    return medians(steps, seconds)


def measure_groups(options: Options) -> list[Record]:
    """Return a record for each number of groups, times in seconds."""
    records = []
    for size in QUICK_GROUPS if options.quick else GROUPS:
        progress("grouped", *size)
        kept = seconds_of_groups(*size, options.seed, options.seconds)
        default = printed_by(__file__, *size, options.seed, options.seconds)
        records.append({**dict(zip(("groups", "n", "d"), size, strict=True)), **kept, "default": default})
    return records


def over_autograd(times: Record) -> float:
    """Return the time of `grouped_mmd2` as a share of that of batched autograd."""
    return float(times["ours"] / times["autograd"])


def table_of_groups(records: list[Record]) -> str:
    """Return a line for each number of groups."""
    header = [
        "groups of n + n, d",
        "`grouped_mmd2` [ms]",
        "/ batched autograd",
        "the same, default allocator",
        "products alone / batched autograd",
        "/ loop of `mmd2`",
        "/ geomloss",
    ]
    rows = []
    for r in records:
        beside_geomloss = f"{r['ours'] / r['geomloss']:.2f}" if "geomloss" in r else "not installed"
        least = f"{r['products'] / r['autograd']:.2f}" if "products" in r else ""
        shares = [f"{over_autograd(times):.2f}" for times in (r, r["default"])]
        ratios = [*shares, least, f"{r['ours'] / r['loop']:.2f}", beside_geomloss]
        rows.append([f"{r['groups']} of {r['n']} + {r['n']}, {r['d']}", f"{r['ours'] * 1e3:.3g}", *ratios])
    return markdown(header, rows)


def targets_of_groups(records: list[Record]) -> list[Target]:
    """Return the promised ratios."""
    found = {(r["groups"], r["n"], r["d"]): over_autograd(r["default"]) for r in records}
    return [
        Target(f"`grouped_mmd2` / batched autograd, {groups} of {n} + {n}, {d}", limit, found.get((groups, n, d)))
        for (groups, n, d), limit in OVER_AUTOGRAD.items()
    ]


PARTS = {
    "grouped": Part(measure_groups, table_of_groups, targets_of_groups),
    "fields": Part(modern_fields.measure, modern_fields.table, lambda records: []),
    "caching": Part(modern_caching.measure, modern_caching.table, modern_caching.targets),
}


def of_part(records: Iterable[Record], name: str) -> list[Record]:
    """Return the records of one part."""
    return [record for record in records if record["part"] == name]


def measure(options: Options) -> list[Record]:
    """Return the records of all parts."""
    return [{"part": name, **record} for name, part in PARTS.items() for record in part.measure(options)]


def table(records: list[Record]) -> str:
    """Return a table for each part that was measured."""
    return "\n\n".join(part.table(own) for name, part in PARTS.items() if (own := of_part(records, name)))


def targets(records: list[Record]) -> list[Target]:
    """Return the promises of all parts."""
    return [target for name, part in PARTS.items() for target in part.targets(of_part(records, name))]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        torch.set_num_threads(1)
        print(json.dumps(seconds_of_groups(*json.loads(sys.argv[2]))))
    else:
        main(sys.modules[__name__])
