"""Guide a generator of one class away from the other classes by negative weights, without a discriminator.

The samples of the classes overlap. A generator that matches the distribution p of its class therefore also generates
samples that could belong to another class. With guidance alpha > 1, it matches alpha p - (alpha - 1) u instead, where u
is the distribution of all classes. This takes one `MMDReference` with weights of both signs. As with other forms of
guidance, the samples vary less.

The following command takes a quarter of a minute on a CPU:

    python examples/guidance.py --out guidance.png
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from torch_mmd_losses import MMDReference, RBFKernel

GUIDANCE = (1.0, 1.5, 2.0, 3.0)
CLASSES = 3
SPREAD = 0.55
"""Standard deviation of each class. The centres are at distance 1 from the origin."""


def centres() -> Tensor:
    """Return the centres of the classes, `(classes, 2)`."""
    angles = math.pi / 2 + torch.arange(CLASSES) * (2 * math.pi / CLASSES)
    return torch.stack([angles.cos(), angles.sin()], 1)


def data(count: int, generator: torch.Generator) -> Tensor:
    """Return samples `(classes, count, 2)` of each class."""
    noise = SPREAD * torch.randn(CLASSES, count, 2, generator=generator)
    return centres().unsqueeze(1) + noise


def guided_reference(samples: Tensor, alpha: float) -> MMDReference:
    """Return the reference of the first class, guided away from all classes.

    Args:
        samples: `(classes, count, 2)`.
        alpha: strength of the guidance, >= 1; 1 means no guidance.
    """
    count = samples.shape[1]
    of_class = torch.full((count,), alpha / count)
    of_all = torch.full((CLASSES * count,), -(alpha - 1) / (CLASSES * count))
    rows, weights = torch.cat([samples[0], samples.flatten(0, 1)]), torch.cat([of_class, of_all])
    return MMDReference(rows, RBFKernel(0.7), weights=weights)


def train(reference: MMDReference, steps: int, generator: torch.Generator) -> nn.Module:
    """Return a generator whose samples match the reference."""
    made = nn.Sequential(nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2))
    optimizer = torch.optim.Adam(made.parameters(), lr=3e-3)
    for _ in range(steps):
        loss = reference.mmd2(made(torch.randn(256, 2, generator=generator)), estimator="unbiased")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return made


def accuracy(samples: Tensor) -> float:
    """Return the share of samples `(n, 2)` whose nearest centre is that of the first class."""
    return float((torch.cdist(samples, centres()).argmin(1) == 0).float().mean())


def draw(samples: Tensor, found: dict[float, Tensor], out: Path) -> None:
    """Draw the data and the samples for each guidance."""
    figure = Figure(figsize=(3.2 * len(found), 3.2), dpi=80, layout="tight")
    axes = figure.subplots(1, len(found))
    for axis, (alpha, points) in zip(axes, found.items(), strict=True):
        axis.scatter(*samples[1:, :300].flatten(0, 1).T, s=3, color="lightgrey", label="other classes")
        axis.scatter(*samples[0, :300].T, s=3, color="tab:blue", label="data of the class")
        axis.scatter(*points[:300].T, s=3, color="tab:orange", label="generated")
        axis.set_title(f"guidance {alpha:g}, {accuracy(points):.0%} nearest to their class", fontsize=9)
        axis.set(xlim=(-2.5, 2.5), ylim=(-2, 3), xticks=[], yticks=[], aspect="equal")
    axes[0].legend(fontsize=8, loc="upper left", markerscale=2)
    figure.savefig(out)


def main(arguments: list[str] | None = None) -> dict[float, float]:
    """Train a generator for each guidance, draw its samples, and return the share that is nearest to its class."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=700, help="number of samples of each class")
    parser.add_argument("--steps", type=int, default=600, help="number of training steps of each generator")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random numbers")
    parser.add_argument("--out", type=Path, default=Path("guidance.png"), help="file of the picture")
    options = parser.parse_args(arguments)
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    samples = data(options.samples, generator)
    found = {}
    for alpha in GUIDANCE:
        made = train(guided_reference(samples, alpha), options.steps, generator)
        found[alpha] = made(torch.randn(2000, 2, generator=generator)).detach()
    draw(samples, found, options.out)
    for name, points in [("data", samples[0]), *((f"guidance {alpha:g}", points) for alpha, points in found.items())]:
        spread = float(points.std(0).mean())
        print(f"{name}: {accuracy(points):.1%} nearest to their class, standard deviation {spread:.3f}")
    return {alpha: accuracy(points) for alpha, points in found.items()}


if __name__ == "__main__":
    main()
