"""How long does `conv_spectral_norm` take, beside PyTorch's own `spectral_norm`?

    python examples/benchmarks/spectral_norm_time.py

The layers are those of the discriminator of Wang et al., Table S1, at 32 x 32 pixels, without what they do to images:
the weights are computed as in a forward in training and differentiated along fixed directions, so that nothing depends
on the batch. "One pass" is one forward and backward of that, of weights that are as before, or have been changed in
place as by an optimiser. "GAN step" is one change of the weights with three forwards and backwards. All candidates are
timed in turn, round after round, in one process and on one thread; what is printed are medians of the process's CPU
time, and their ratios to PyTorch's, which normalises by the norm of the reshaped weight.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from torch_mmd_losses import conv_spectral_norm
from torch_mmd_losses.spectral_norm import Method

CONVOLUTIONS = (
    (3, 64, 3, 1, 32),
    (64, 128, 4, 2, 32),
    (128, 128, 3, 1, 16),
    (128, 256, 4, 2, 16),
    (256, 256, 3, 1, 8),
    (256, 512, 4, 2, 8),
    (512, 512, 3, 1, 4),
)
"""Input and output channels, kernel size, stride and input size."""

METHODS: tuple[Method, ...] = ("conv", "pico", "matrix")


def layers() -> list[nn.Module]:
    """Return the layers of Table S1, each with the same weights at every call."""
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(c, d, k, stride, padding=1) for c, d, k, stride, _ in CONVOLUTIONS]
    return [*convolutions, nn.Linear(512 * 4 * 4, 16)]


def original(layer: nn.Module) -> Tensor:
    """Return the trained weight of a wrapped layer."""
    return layer.get_parameter("parametrizations.weight.original")


class Candidate:
    """The wrapped layers, and the directions to differentiate along."""

    def __init__(self, method: Method | None) -> None:
        self.layers = layers()
        self.directions = [torch.randn_like(layer.weight) for layer in self.layers]  # type: ignore[arg-type]
        self.inputs = [torch.zeros(1, c, size, size) for c, _, _, _, size in CONVOLUTIONS]
        self.inputs.append(torch.zeros(1, 512 * 4 * 4))
        for layer, x in zip(self.layers, self.inputs, strict=True):
            if method is None:
                parametrizations.spectral_norm(layer)
            else:
                conv_spectral_norm(layer, method=method)(x)

    def change(self) -> None:
        """Write to the trained weights in place, as an optimiser does; this is not what is timed."""
        with torch.no_grad():
            for layer in self.layers:
                original(layer).mul_(1)

    def step(self) -> None:
        """Compute the weights as a forward in training does, and differentiate."""
        weights: list[Tensor] = []
        for layer, x in zip(self.layers, self.inputs, strict=True):
            for hook in layer._forward_pre_hooks.values():
                hook(layer, (x,), {})
            weights.append(cast("Tensor", layer.weight))
        torch.autograd.backward(weights, self.directions)
        for layer in self.layers:
            original(layer).grad = None


def question(passes: int, change: bool) -> Callable[[Candidate], float]:
    """Return what gives the CPU seconds of some passes."""

    def seconds(candidate: Candidate) -> float:
        if change:
            candidate.change()
        start = time.process_time()
        for _ in range(passes):
            candidate.step()
        return time.process_time() - start

    return seconds


def main() -> None:
    """Print a line for each question."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--rounds", type=int, default=41, help="how often to time each candidate (%(default)s)")
    options = reader.parse_args()
    torch.set_num_threads(1)
    candidates: dict[str, Candidate] = {"PyTorch": Candidate(None)}
    candidates |= {method: Candidate(method) for method in METHODS}
    print("                            PyTorch [ms]", *(f"{method:>8}" for method in METHODS))
    for label, seconds in {
        "one pass, same weights": question(1, False),
        "one pass, changed weights": question(1, True),
        "GAN step": question(3, True),
    }.items():
        times: dict[str, list[float]] = {name: [] for name in candidates}
        for _ in range(options.rounds + 2):
            for name, candidate in candidates.items():
                times[name].append(seconds(candidate))
        medians = {name: median(values[2:]) for name, values in times.items()}
        ratios = (f"{medians[method] / medians['PyTorch']:8.2f}" for method in METHODS)
        print(f"{label:27} {medians['PyTorch'] * 1e3:12.1f}", *ratios, flush=True)


if __name__ == "__main__":
    main()
