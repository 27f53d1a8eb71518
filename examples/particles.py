"""Move particles from one shape to another by flows of MMD^2 and DrMMD and by drifts, and draw their fields.

Each row of the picture shows one method. The flow of MMD^2 follows the gradient of the witness function, evaluated at
the particles plus noise that decreases to zero (Arbel et al., 2019). The flow of the (de)-regularised MMD gives more
weight to directions in which the target varies little, and has no noise here (Chen et al., 2024). The drifts divide
attraction and repulsion by sums of kernel values, so particles far from the target move as well.

The following command takes half a minute on a CPU:

    python examples/particles.py --out particles.png
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from torch_mmd_losses import LaplaceKernel, MMDReference, RBFKernel, drift, mmd2, witness_gradient

SHOWN = (0.0, 0.02, 0.1, 1.0)
"""Shares of the steps after which the particles are drawn."""

KERNEL = RBFKernel(0.5)
"""The kernel of both flows."""

LAMBDA = 0.1
"""The regularisation of DrMMD."""

JUDGE = RBFKernel(0.3)
"""The kernel of the MMD^2 above each panel, the same for all methods."""

Field = Callable[[Tensor, Tensor], Tensor]
"""Returns the velocity at points, given the particles."""


class Way(NamedTuple):
    """A method to move particles."""

    name: str
    towards: Callable[[Tensor], Field]
    """Returns the field for a target."""
    step: float
    noise: float = 0.0
    """Initial standard deviation of the noise, which falls linearly to zero over the first half of the steps."""


def mmd_flow(target: Tensor) -> Field:
    """Return the gradient of the witness function of MMD."""
    return lambda points, particles: witness_gradient(points, real=target, fake=particles, kernel=KERNEL)


def drmmd_flow(target: Tensor) -> Field:
    """Return the gradient of the witness function of the (de)-regularised MMD."""
    reference = MMDReference(target, KERNEL)

    def velocity(points: Tensor, particles: Tensor) -> Tensor:
        points = points.detach().requires_grad_()
        values = reference.drmmd_witness(points, particles, lambda_=LAMBDA)
        (found,) = torch.autograd.grad(values.sum(), points)
        return found

    return velocity


def drift_by_rows(target: Tensor) -> Field:
    """Return the drift in which attraction and repulsion are divided by their sums of kernel values."""
    kernel = LaplaceKernel(0.3)
    return lambda points, particles: drift(points, target, negatives=particles, kernel=kernel, normalise="rows")


def drift_by_rows_and_columns(target: Tensor) -> Field:
    """Return the drift that is also divided by the sums over particles."""
    kernel = LaplaceKernel(0.3)
    return lambda points, particles: drift(
        points, target, negatives=particles, kernel=kernel, normalise="rows_and_columns"
    )


WAYS = (
    Way("MMD flow, RBF", mmd_flow, step=0.1, noise=0.5),
    Way("DrMMD flow, RBF", drmmd_flow, step=0.02),
    Way("drift, Laplace, rows", drift_by_rows, step=0.1),
    Way("drift, Laplace, rows and columns", drift_by_rows_and_columns, step=0.1),
)


def start(count: int, generator: torch.Generator) -> Tensor:
    """Return particles `(count, 2)` in a disc to the left of the target."""
    angles = torch.rand(count, generator=generator) * 2 * math.pi
    radii = 0.35 * torch.rand(count, generator=generator).sqrt()
    return torch.stack([radii * angles.cos() - 1.6, radii * angles.sin() - 0.9], 1)


def goal(count: int, generator: torch.Generator) -> Tensor:
    """Return samples `(count, 2)` of a heart."""
    t = torch.rand(count, generator=generator) * 2 * math.pi
    x = 16 * t.sin() ** 3
    y = 13 * t.cos() - 5 * (2 * t).cos() - 2 * (3 * t).cos() - (4 * t).cos()
    return torch.stack([x, y], 1) / 16 + 0.03 * torch.randn(count, 2, generator=generator)


def trajectory(way: Way, particles: Tensor, target: Tensor, steps: int, generator: torch.Generator) -> list[Tensor]:
    """Return the particles at the start and after each step."""
    field, found = way.towards(target), [particles]
    for i in range(steps):
        noise = torch.randn(particles.shape, generator=generator) * (way.noise * max(0.0, 1 - 2 * i / steps))
        particles = particles + way.step * field(particles + noise, particles)
        found.append(particles)
    return found


def draw(paths: dict[str, list[Tensor]], target: Tensor, out: Path) -> None:
    """Draw particles, target and field at a few steps of each path."""
    figure = Figure(figsize=(3 * len(SHOWN), 2.6 * len(paths)), dpi=80, layout="tight")
    axes = figure.subplots(len(paths), len(SHOWN), squeeze=False)
    grid = torch.cartesian_prod(torch.linspace(-2.2, 1.4, 19), torch.linspace(-1.6, 1.3, 16))
    for row, way in zip(axes, WAYS, strict=True):
        path, towards = paths[way.name], way.towards(target)
        for axis, share in zip(row, SHOWN, strict=True):
            step = round(share * (len(path) - 1))
            particles = path[step]
            field = towards(grid, particles)
            lengths = field.norm(dim=1, keepdim=True)
            # Arrows show directions. Lengths differ by orders of magnitude, so the colour shows them.
            arrows = field / lengths.clamp_min(1e-12)
            axis.quiver(*grid.T, *arrows.T, lengths.log10().squeeze(1), cmap="Greys", width=0.004, scale=28)
            axis.scatter(*target.T, s=4, color="tab:blue", label="target")
            axis.scatter(*particles.T, s=4, color="tab:orange", label="particles")
            axis.set_title(
                f"step {step}, MMD² {float(mmd2(target, particles, JUDGE, estimator='biased')):.2g}", fontsize=9
            )
            axis.set(xticks=[], yticks=[], xlim=(-2.3, 1.5), ylim=(-1.7, 1.4), aspect="equal")
        row[0].set_ylabel(way.name)
    axes[0, 0].legend(fontsize=8, loc="upper left", markerscale=2)
    figure.savefig(out)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Move the particles by each method, draw them, and return the final MMD^2 of each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, default=300, help="number of particles, and of samples of the target")
    parser.add_argument("--steps", type=int, default=1000, help="number of steps")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random numbers")
    parser.add_argument("--out", type=Path, default=Path("particles.png"), help="file of the picture")
    options = parser.parse_args(arguments)
    generator = torch.Generator().manual_seed(options.seed)
    target, particles = goal(options.particles, generator), start(options.particles, generator)
    paths = {way.name: trajectory(way, particles, target, options.steps, generator) for way in WAYS}
    draw(paths, target, options.out)
    found = {name: float(mmd2(target, path[-1], JUDGE, estimator="biased")) for name, path in paths.items()}
    for name, value in found.items():
        print(f"{name}: MMD^2 {value:.5f} after {options.steps} steps")
    return found


if __name__ == "__main__":
    main()
