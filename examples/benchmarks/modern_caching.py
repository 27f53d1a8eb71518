"""Gradient caching compared with the backward pass of a whole batch: a part of the question `modern`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from common import Options, Record, Target, markdown, medians, progress
from torch import Tensor, nn

from torch_mmd_losses import RBFKernel, cached_backward, mmd2

SIZES = ((2048, 256), (8192, 256))
"""Numbers of samples of a batch, and of a chunk."""

QUICK_SIZES = ((8, 3),)
WIDTH, FEATURES, LAYERS = 512, 64, 6
OVER_WHOLE = 1.4
"""The largest time over that of the whole batch: a forward pass more, of three passes, and the visits of the chunks."""


def network() -> nn.Sequential:
    """Return a generator and an encoder in one."""
    hidden = [layer for _ in range(LAYERS) for layer in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
    return nn.Sequential(nn.Linear(64, WIDTH), nn.ReLU(), *hidden, nn.Linear(WIDTH, FEATURES))


class Saved:
    """Counts the bytes that autograd keeps for the backward pass, at most at a time, without those of a network."""

    def __init__(self, model: nn.Module) -> None:
        self.now = self.most = 0
        self.left_out = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def __call__(self, work: Callable[[], object]) -> int:
        """Return the most bytes that a call keeps."""

        def pack(tensor: Tensor) -> Any:  # noqa: ANN401
            return _Kept(self, tensor)

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
            work()
        return self.most


class _Kept:
    def __init__(self, counter: Saved, tensor: Tensor) -> None:
        self.counter, self.tensor = counter, tensor
        own = tensor.untyped_storage().data_ptr() not in counter.left_out
        self.size = tensor.numel() * tensor.element_size() if own else 0
        counter.now += self.size
        counter.most = max(counter.most, counter.now)

    def __del__(self) -> None:
        self.counter.now -= self.size


def steps(model: nn.Module, count: int, chunk: int, seed: int) -> dict[str, Callable[[], None]]:
    """Return the backward pass of the whole batch, and the one in chunks."""
    torch.manual_seed(seed)
    kernel = RBFKernel(FEATURES**0.5)
    noise, real = torch.randn(count, 64), torch.randn(count, FEATURES)

    def loss(fake: Tensor) -> Tensor:
        return mmd2(real, fake, kernel)

    def whole() -> None:
        model.zero_grad()
        loss(model(noise)).backward()

    def cached() -> None:
        model.zero_grad()
        cached_backward(noise.split(chunk), model, loss)

    return {"whole": whole, "cached": cached}


def measure(options: Options) -> list[Record]:
    """Return a record for each size: seconds, and bytes that are kept for the backward pass."""
    records: list[Record] = []
    for count, chunk in QUICK_SIZES if options.quick else SIZES:
        progress("caching", count, chunk)
        model = network()
        work = steps(model, count, chunk, options.seed)
        kept = {f"{name} bytes": Saved(model)(step) for name, step in work.items()}
        records.append({"n": count, "chunk": chunk, **medians(work, options.seconds), **kept})
    return records


def table(records: list[Record]) -> str:
    """Return a line for each size."""
    rows = [
        [
            f"{r['n']} in chunks of {r['chunk']}",
            f"{r['cached'] * 1e3:.3g}",
            f"{r['cached'] / r['whole']:.2f}",
            f"{r['cached bytes'] / 1e6:.3g}",
            f"{r['cached bytes'] / r['whole bytes']:.2f}",
        ]
        for r in records
    ]
    return markdown(
        ["batch", "`cached_backward` [ms]", "/ whole batch", "activations kept [MB]", "/ whole batch"], rows
    )


def targets(records: list[Record]) -> list[Target]:
    """Return the promised ratio, at the larger size."""
    found = {r["n"]: r["cached"] / r["whole"] for r in records}
    (count, chunk) = SIZES[-1]
    return [Target(f"`cached_backward` / whole batch, {count} in chunks of {chunk}", OVER_WHOLE, found.get(count))]
