"""Train a one-step generator by Inductive Moment Matching on a mixture of Gaussians in the plane.

A network maps noisy samples at a time t to samples at an earlier time s. It is trained so that the result has the
distribution that the same network reaches from samples at a time r between s and t, which have less noise (Zhou et al.,
2025). Each training step has many pairs of times, each with a group of samples. `grouped_mmd2` compares all groups in
one call, each with its own scale.

Differences from the paper, which generates images:

- s is mostly early instead of uniform, because the modes are only separate at early times.
- The scale of the kernel is t - s instead of the paper's D |c_out(s, t)|, where D = 2 is the dimension.
- r is earlier than t by 2^-5 of the range of noise-to-signal ratios, instead of 2^-12 to 2^-15 (k of the paper).
- The weights of the times have b = 5 and a = 1, one of the paper's choices, but are divided by their mean.
- A group has 32 samples instead of 4, and distances have no floor.

The following command takes half a minute on a CPU:

    python examples/moment_matching.py --out moment_matching.png
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from torch_mmd_losses import LaplaceKernel, RBFKernel, grouped_mmd2, mmd2

FIRST, LAST = 0.006, 0.994
"""Range of the times. At time t a sample is `(1 - t) data + t noise`."""

LOG_HALVINGS = 5
"""r is earlier than t by the range of noise-to-signal ratios divided by two to this power (k of the paper, 12)."""

SHIFT = 5.0
"""b of the paper. A larger value gives noisy samples more weight."""

MODES = 8


class Times(NamedTuple):
    """The times of each group, each `(groups,)`: `s <= r < t`."""

    s: Tensor
    r: Tensor
    t: Tensor

    @staticmethod
    def draw(groups: int, generator: torch.Generator) -> Times:
        """Draw t uniformly and s mostly early, where the modes of the data are separate, and compute r."""
        t = FIRST + (LAST - FIRST) * torch.rand(groups, generator=generator)
        s = FIRST + (t - FIRST) * torch.rand(groups, generator=generator) ** 3
        ratio = t / (1 - t) - (LAST / (1 - LAST) - FIRST / (1 - FIRST)) / 2**LOG_HALVINGS
        return Times(s, torch.maximum(s, ratio / (1 + ratio)).where(ratio > 0, s), t)

    def weights(self) -> Tensor:
        """Return the weight of each group in the loss, with mean 1 (Section 4 of the paper, with a = 1)."""
        t = self.t
        log_snr = 2 * torch.log((1 - t) / t)
        found = torch.sigmoid(SHIFT - log_snr) / (t * (1 - t)) * (1 - t) / ((1 - t) ** 2 + t**2)
        return found / found.mean()


class Jump(nn.Module):
    """A network that maps samples at time t to samples at time s: `x - (t - s) v(x, s, t)`."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.velocity = nn.Sequential(
            nn.Linear(6, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, 2),
        )  # fmt: skip

    def forward(self, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """Return samples `(..., 2)` at the times `s` from samples `(..., 2)` at the times `t`, both `(..., 1)`."""
        times = torch.cat([s, t, torch.log(s / (1 - s)) / 5, torch.log(t / (1 - t)) / 5], -1)
        return x - (t - s) * self.velocity(torch.cat([x, times.expand(*x.shape[:-1], 4)], -1))


def data(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return samples `(*shape, 2)` of Gaussians on a circle."""
    angles = torch.randint(MODES, shape, generator=generator) * (2 * math.pi / MODES)
    return torch.stack([angles.cos(), angles.sin()], -1) + 0.08 * torch.randn(*shape, 2, generator=generator)


def loss(jump: Jump, times: Times, clean: Tensor, noise: Tensor) -> Tensor:
    """Return the loss of groups of samples `(groups, m, 2)`."""
    s, r, t = (each.view(-1, 1, 1) for each in times)
    fake = jump((1 - t) * clean + t * noise, s, t)
    with torch.no_grad():
        real = jump((1 - r) * clean + r * noise, s, r)
    # A jump over a longer time changes samples more, so its scale is wider.
    values = grouped_mmd2(real, fake, LaplaceKernel(), scale=times.t - times.s, estimator="biased")
    return (times.weights() * values).mean()


def train(jump: Jump, groups: int, m: int, steps: int, generator: torch.Generator) -> Iterator[float]:
    """Train the network, and yield the loss of each step."""
    optimizer = torch.optim.Adam(jump.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        noise = torch.randn(groups, m, 2, generator=generator)
        value = loss(jump, Times.draw(groups, generator), data((groups, m), generator), noise)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        yield float(value.detach())


@torch.no_grad()
def sample(jump: Jump, count: int, stops: tuple[float, ...], generator: torch.Generator) -> Tensor:
    """Return samples `(count, 2)` at the first time, starting from noise, with the given times in between."""
    x, t = torch.randn(count, 2, generator=generator), torch.tensor([[LAST]])
    for stop in (*stops, FIRST):
        s = torch.tensor([[stop]])
        x, t = jump(x, s, t), s
    return x


def draw(panels: dict[str, Tensor], found: dict[str, float], losses: list[float], out: Path) -> None:
    """Draw the samples and the losses."""
    figure = Figure(figsize=(3 * len(panels) + 3, 3), dpi=80, layout="tight")
    axes = figure.subplots(1, len(panels) + 1)
    for axis, (name, points) in zip(axes, panels.items(), strict=False):
        axis.scatter(*points.T, s=2, alpha=0.5)
        axis.set_title(f"{name}, MMD² {found[name]:.4f}")
        axis.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), xticks=[], yticks=[], aspect="equal")
    width = max(1, len(losses) // 50)
    means = [sum(losses[i : i + width]) / width for i in range(0, len(losses) - width + 1, width)]
    axes[-1].semilogy([width * (i + 1) for i in range(len(means))], means)
    axes[-1].set(title="loss of the training", xlabel="step")
    figure.savefig(out)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train the network, draw its samples, and return MMD^2 between each panel and held-out samples of the data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=64, help="number of pairs of times per step")
    parser.add_argument("--group-size", type=int, default=32, help="number of samples that share a pair of times")
    parser.add_argument("--steps", type=int, default=1500, help="number of training steps")
    parser.add_argument("--samples", type=int, default=2000, help="number of samples in the picture and in MMD^2")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random numbers")
    parser.add_argument("--out", type=Path, default=Path("moment_matching.png"), help="file of the picture")
    options = parser.parse_args(arguments)
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    jump = Jump()
    losses = list(train(jump, options.groups, options.group_size, options.steps, generator))
    count = options.samples
    panels = {
        "data": data((count,), generator),
        "noise": torch.randn(count, 2, generator=generator),
        "one step": sample(jump, count, (), generator),
        "two steps": sample(jump, count, (0.7,), generator),
    }
    held_out = data((count,), generator)
    found = {name: float(mmd2(held_out, points, RBFKernel(0.3))) for name, points in panels.items()}
    draw(panels, found, losses, options.out)
    for name, value in found.items():
        print(f"{name}: MMD^2 {value:.5f}")
    return found


if __name__ == "__main__":
    main()
