"""Fields of one-step generation compared with the usual dense code: a part of the question `modern`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from common import Options, Record, markdown, medians, progress
from torch import Tensor

from torch_mmd_losses import LaplaceKernel, drift, drift_loss, kernel_sums, witness_gradient

SIZES = ((64, 64, 64, 256), (1, 1024, 1024, 64), (1, 4096, 4096, 64))
"""Numbers of groups, of fake and of real samples, and the dimension."""

QUICK_SIZES = ((3, 5, 4, 2), (1, 300, 310, 2))

Field = Callable[[Tensor, Tensor], object]
"""Computes a field from fake samples `(groups, n, d)` and real samples `(groups, m, d)`."""


def dense_sums(fake: Tensor, real: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return the sums of kernel values, and of samples with these weights, by whole matrices."""
    values = torch.exp(torch.cdist(fake, real) / -scale)
    return values.sum(-1), values @ real


def dense_drift(fake: Tensor, real: Tensor, scale: float) -> Tensor:
    """Return the drift that is normalised over rows and columns, by whole matrices."""
    logits = torch.cat([torch.cdist(fake, fake), torch.cdist(fake, real)], -1) / -scale
    logits.diagonal(dim1=-2, dim2=-1).fill_(-torch.inf)
    affinities = (logits.softmax(-1) * logits.softmax(-2)).sqrt()
    repelling, attracting = affinities.split([fake.shape[-2], real.shape[-2]], -1)
    pull = repelling.sum(-1, keepdim=True) * (attracting @ real)
    return pull - attracting.sum(-1, keepdim=True) * (repelling @ fake)


def dense_witness_gradient(fake: Tensor, real: Tensor, scale: float) -> Tensor:
    """Return the gradient of the witness function at the fake samples, by whole matrices."""

    def towards(samples: Tensor) -> Tensor:
        distances = torch.cdist(fake, samples)
        slopes = torch.exp(distances / -scale) / distances
        if samples is fake:
            slopes.fill_diagonal_(0)
        return (slopes @ samples - slopes.sum(-1, keepdim=True) * fake) / (scale * samples.shape[-2])

    return towards(real) - towards(fake)


def dense_drift_loss(fake: Tensor, real: Tensor) -> Tensor:
    """Return the loss of drifting models of one temperature after the other, as the authors' code computes it."""
    n, d = fake.shape[-2:]
    samples = torch.cat([fake, real], -2)
    distances = torch.cdist(fake, samples).clamp_min(1e-4)
    scale = distances.mean()
    relative = distances / -scale
    relative.diagonal(dim1=-2, dim2=-1).sub_(100)
    unit, movement = scale / d**0.5, torch.zeros_like(fake)
    for temperature in (0.02, 0.05, 0.2):
        logits = relative / temperature
        affinities = (logits.softmax(-1) * logits.softmax(-2)).clamp_min(1e-6).sqrt()
        repelling, attracting = affinities.split([n, real.shape[-2]], -1)
        pull = repelling.sum(-1, keepdim=True) * (attracting @ real)
        field = (pull - attracting.sum(-1, keepdim=True) * (repelling @ fake)) / unit
        movement += field / field.square().mean().clamp_min(1e-8).sqrt()
    return (fake / unit - (fake / unit + movement)).square().mean((-2, -1))


def fields(scale: float) -> dict[str, tuple[Field, Field]]:
    """Return each field as the library computes it, and as dense code does."""
    kernel = LaplaceKernel(scale)
    return {
        "`kernel_sums`": (
            lambda fake, real: kernel_sums(fake, real, kernel),
            lambda fake, real: dense_sums(fake, real, scale),
        ),
        "`drift`, rows and columns": (
            lambda fake, real: drift(fake, real, kernel=kernel, normalise="rows_and_columns"),
            lambda fake, real: dense_drift(fake, real, scale),
        ),
        "`drift_loss`": (drift_loss, dense_drift_loss),
        "`witness_gradient`": (
            lambda fake, real: witness_gradient(fake[0], real=real[0], fake=fake[0], kernel=kernel),
            lambda fake, real: dense_witness_gradient(fake[0], real[0], scale),
        ),
    }


def measure(options: Options) -> list[Record]:
    """Return a record for each size and field, times in seconds."""
    records = []
    for groups, n, m, d in QUICK_SIZES if options.quick else SIZES:
        progress("fields", groups, n, m, d)
        generator = torch.Generator().manual_seed(options.seed)
        fake = torch.randn(groups, n, d, generator=generator)
        real = torch.randn(groups, m, d, generator=generator) + 0.2
        for name, (ours, dense) in fields(d**0.5).items():
            if "witness" in name and groups > 1:
                continue  # it has no groups

            def run(field: Field, fake: Tensor = fake, real: Tensor = real) -> Callable[[], object]:
                return lambda: field(fake, real)

            times = medians({"ours": run(ours), "dense": run(dense)}, options.seconds)
            records.append({"groups": groups, "n": n, "m": m, "d": d, "field": name, **times})
    return records


def table(records: list[Record]) -> str:
    """Return a line for each size and field."""
    rows = [
        [
            f"{r['groups']} of {r['n']} + {r['m']}, {r['d']}",
            r["field"],
            f"{r['ours'] * 1e3:.3g}",
            f"{r['ours'] / r['dense']:.2f}",
            f"{4e-6 * r['groups'] * r['n'] * (r['n'] * ('sums' not in r['field']) + r['m']):.3g}",
        ]
        for r in records
    ]
    return markdown(["groups of n + m, d", "field", "ours [ms]", "/ dense code", "a matrix of dense code [MB]"], rows)
