"""What does a step with a reference cost, and how far off are its landmarks and its random features?

The reference has 40 clusters, each of rank 8, and the fake samples are 0.5 off in one direction. Everything is in
float32, on one thread, with an RBF kernel whose sigma is a multiple of the median distance. A step is the biased value
with its gradient for 512 fake samples. `mmd2` gets all rows in each step, and in another line a real batch of 2048
rows, as in trainers without a reference. Times are medians of CPU seconds. The error is that of the gradient with
respect to the fake samples, relative to its norm, averaged over the seeds of random choices. Memory is the maximum that
building the reference and a step need beyond the rows, in a separate process. `--largest` adds an exact reference of a
million rows.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import NamedTuple

import torch
from common import Options, Record, cpu_seconds, main, markdown, medians, printed_by, progress
from memory import peak
from torch import Tensor

from torch_mmd_losses import Kernel, MMDReference, RBFKernel, median_distance, mmd2

SIZE = (20_000, 64)
QUICK = (200, 8)
LARGEST = (1_000_000, 64)
FAKE = 512
BATCH = 2048
WIDTHS = (0.25, 0.5, 1.0)
LANDMARKS = (256, 1024)
FREQUENCIES = (1024, 4096)
SEEDS = 2
CLUSTERS, RANK, OFF = 40, 8, 0.5

Loss = Callable[[Tensor], Tensor]


class Form(NamedTuple):
    """A way to compute the loss, given the rows, the kernel and a seed; `mmd2` and the exact form have no error."""

    name: str
    make: Callable[[Tensor, Kernel, int], Loss]


def data(n: int, d: int, seed: int, fakes: int) -> tuple[Tensor, Tensor]:
    """Return the rows of a reference, and fake samples."""
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(CLUSTERS, d, generator=generator)
    bases = torch.randn(CLUSTERS, RANK, d, generator=generator) / RANK**0.5

    def draw(count: int) -> Tensor:
        chosen = torch.randint(CLUSTERS, (count,), generator=generator)
        rows = centres[chosen]
        for part in torch.arange(count).split(4096):
            codes = torch.randn(len(part), 1, RANK, generator=generator)
            rows[part] += (codes @ bases[chosen[part]]).squeeze(1)
        return rows

    real, fake = draw(n), draw(fakes)
    fake[:, 0] += OFF
    return real, fake


def forms(n: int) -> list[Form]:
    """Return the ways to compute the loss, that of all rows first."""

    def of_a_batch(real: Tensor, kernel: Kernel, seed: int) -> Loss:
        batch = real[torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))[:BATCH]]
        return lambda fake: mmd2(batch, fake, kernel, estimator="biased")

    def with_landmarks(count: int) -> Form:
        def make(real: Tensor, kernel: Kernel, seed: int) -> Loss:
            generator = torch.Generator().manual_seed(seed)
            return MMDReference(real, kernel, kind="nystrom", landmarks=count, self_rows=1000, generator=generator).mmd2

        return Form(f"{count} landmarks", make)

    def with_frequencies(count: int) -> Form:
        def make(real: Tensor, kernel: Kernel, seed: int) -> Loss:
            generator = torch.Generator().manual_seed(seed)
            return MMDReference(real, kernel, kind="fourier", frequencies=count, generator=generator).mmd2

        return Form(f"{count} frequencies", make)

    return [
        Form("`mmd2`, all rows", lambda real, kernel, _: lambda fake: mmd2(real, fake, kernel, estimator="biased")),
        Form("exact", lambda real, kernel, _: MMDReference(real, kernel, self_rows=1000).mmd2),
        Form(f"`mmd2`, batch of {BATCH}", of_a_batch),
        *(with_landmarks(count) for count in LANDMARKS if count < n),
        *(with_frequencies(count) for count in FREQUENCIES),
    ]


def step(loss: Loss, fake: Tensor) -> Callable[[], Tensor]:
    """Return a function that computes the loss, and returns its gradient."""
    fake = fake.clone().requires_grad_()
    return lambda: torch.autograd.grad(loss(fake), fake)[0]


def measure(options: Options) -> list[Record]:
    """Return a record for each width and form."""
    records: list[Record] = []
    for n, d in options.sizes([SIZE], [QUICK]):
        real, fake = data(n, d, options.seed, FAKE if n == SIZE[0] else 32)
        median = median_distance(real, generator=torch.Generator().manual_seed(options.seed))
        for width in WIDTHS:
            kernel = RBFKernel(width * median)
            losses = {form.name: [form.make(real, kernel, seed) for seed in range(SEEDS)] for form in forms(n)}
            progress(n, d, width)
            seconds = medians({name: step(each[0], fake) for name, each in losses.items()}, options.seconds)
            exact = step(next(iter(losses.values()))[0], fake)()
            for name, each in losses.items():
                errors = [(step(loss, fake)() - exact).norm() / exact.norm() for loss in each]
                error = float(torch.stack(errors).mean())
                record = {"n": n, "d": d, "width": width, "form": name, "seconds": seconds[name], "error": error}
                if not options.quick and width == 1:
                    record["bytes"] = in_new_process(name, n, d, options.seed)[0]
                records.append(record)
    if options.largest:
        progress(*LARGEST)
        needed, taken = in_new_process("exact", *LARGEST, options.seed)
        n, d = LARGEST
        records.append({"n": n, "d": d, "width": 1.0, "form": "exact", "seconds": taken, "error": 0.0, "bytes": needed})
    return records


def needs(name: str, n: int, d: int, seed: int) -> tuple[float, float]:
    """Return the bytes that a reference and a step need beyond its rows, and the CPU seconds of the step."""
    torch.set_num_threads(1)
    real, fake = data(n, d, seed, FAKE)
    form = next(form for form in forms(n) if form.name == name)
    kernel = RBFKernel(median_distance(real[::10], generator=torch.Generator().manual_seed(seed), max_samples=500))
    step(form.make(real[:2000].clone(), kernel, seed), fake[:300])()  # loads code
    seconds = []

    def work() -> None:
        loss = form.make(real, kernel, seed)
        loss(fake[:2])  # finds the self term
        seconds.append(cpu_seconds(step(loss, fake)))

    return peak(work).bytes, seconds[0]


def in_new_process(*arguments: object) -> list[float]:
    """Return :func:`needs`, measured in a new process with the default allocator."""
    found: list[float] = printed_by(__file__, *arguments)
    return found


def table(records: list[Record]) -> str:
    """Return a line for each width and form."""
    rows = []
    for r in records:
        cells = [f"{r['n']}, {r['d']}", f"{r['width']:g}", r["form"], f"{r['seconds'] * 1e3:.3g}"]
        memory = f"{r['bytes'] / 1e6:.0f}" if "bytes" in r else ""
        rows.append([*cells, f"{100 * r['error']:.2g} %", memory])
    return markdown(["rows, d", "sigma / median", "form", "step [ms]", "error of the gradient", "MB"], rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(needs(*json.loads(sys.argv[2]))))
    else:
        main(sys.modules[__name__])
