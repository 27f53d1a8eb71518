r"""Fig. 4 of Arbel et al. (2018): critic gradients between two Gaussians, for two constraints on the gradient.

P = N((-1, 0), I) is on the left, Q = N((1, 0), I) on the right, and mu = (P + Q) / 2 for both critics:

* The gradient-constrained MMD with a Gaussian kernel, sigma = 1 and lambda = 0.1, is estimated from low-discrepancy
  points of both distributions. Its critic is g = D^-1 eta, Proposition 3. For fixed mu, S^2 is the MMD^2 of another
  kernel. Up to a constant, g(t) is therefore (S^2(Q, t) - S^2(P, t)) / 2 for a point mass at t.
* The critic of Sobolev GAN is the solution of -div(mu grad u) = P - Q that vanishes on the border of the square
  [-6, 6]^2, by finite volumes.

The paper gives neither the means, nor the covariances, nor the border. By symmetry, a quarter of the plane is enough:
both critics are odd in x and even in y. Both go to zero at large distances, so to the right of Q both gradients point
away from P. For the gradient-constrained critic, this happens within the reach of the kernel. For Sobolev GAN, it
happens next to the border, where mu has so little mass that a steep critic costs almost nothing.
"""

from __future__ import annotations

import math
import sys
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.func import grad, vmap

sys.path.append(str(Path(__file__).parents[2]))  # examples/

from figures.script import Claim, main

from torch_mmd_losses import RBFKernel, gradient_constrained_mmd2

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (11.0, 5.2)
CENTRE = 1.0
LAMBDA = 0.1
KERNEL = RBFKernel(sigma=1.0)
POINTS = 64
"""Number of points that represent each distribution."""
BORDER = 6.0
CELLS = 45
"""Number of finite volumes from zero to the border."""
EVERY = 3
"""Distance between cells with an arrow, in cells."""


class Field(NamedTuple):
    """Gradients of a critic on a grid in the quarter x > 0, y > 0."""

    at: Tensor
    """`(n, 2)`."""
    gradients: Tensor
    """`(n, 2)`."""


def density(at: Tensor, centre: float) -> Tensor:
    """Return the density at `(..., 2)` of the Gaussian around `(centre, 0)`."""
    return torch.exp(-0.5 * (at - at.new_tensor([centre, 0])).square().sum(-1)) / math.tau


def samples() -> tuple[Tensor, Tensor]:
    """Return points of P and of Q, `(POINTS, 2)` each, with the symmetry of the distributions."""
    uniform = torch.quasirandom.SobolEngine(2).draw(POINTS // 2 + 1, dtype=torch.float64)[1:]
    normal = torch.special.ndtri(uniform)
    fake = torch.cat([normal, normal * normal.new_tensor([1, -1])]) + normal.new_tensor([CENTRE, 0])
    return fake * normal.new_tensor([-1, 1]), fake


def gradient_constrained(at: Tensor) -> Tensor:
    """Return the gradients `(n, 2)` of the gradient-constrained critic at points `(n, 2)`."""
    real, fake = samples()
    mu = torch.cat([real, fake])

    def half_difference(t: Tensor) -> Tensor:
        to_real, to_fake = (
            gradient_constrained_mmd2(group, t.unsqueeze(0), KERNEL, lambda_=LAMBDA, mu=mu) for group in (real, fake)
        )
        return (to_fake - to_real) / 2

    return vmap(grad(half_difference), chunk_size=128)(at)


@cache
def sobolev() -> Field:
    """Return the gradients of the Sobolev critic at the centres of every `EVERY`-th cell."""
    width = BORDER / CELLS
    edges = torch.arange(CELLS + 1, dtype=torch.float64) * width
    centres = edges[:-1] + width / 2

    def on_grid(x: Tensor, y: Tensor, sign: int) -> Tensor:
        at = torch.cartesian_prod(x, y).unflatten(0, (len(x), len(y)))
        return (density(at, -CENTRE) + sign * density(at, CENTRE)) / 2

    across, along = on_grid(edges, centres, 1), on_grid(centres, edges, 1)  # mu at the faces of the cells
    # The critic vanishes on these borders, half a cell from the centres. There is no flux through y = 0.
    across[[0, -1]] *= 2
    along[:, -1] *= 2
    along[:, 0] = 0
    index = torch.arange(CELLS**2).unflatten(0, (CELLS, CELLS))
    matrix = torch.diag((across[1:] + across[:-1] + along[:, 1:] + along[:, :-1]).flatten())
    for flux, one, other in ((across[1:-1], index[1:], index[:-1]), (along[:, 1:-1], index[:, 1:], index[:, :-1])):
        matrix[one, other] = matrix[other, one] = -flux
    right = 2 * on_grid(centres, centres, -1).flatten() * width**2
    # The density spans many orders of magnitude, so the matrix is scaled to a unit diagonal.
    root = matrix.diagonal().rsqrt()
    decomposition = torch.linalg.cholesky(root.unsqueeze(1) * matrix * root)
    critic = root * torch.cholesky_solve((root * right).unsqueeze(1), decomposition).squeeze(1)
    gradients = torch.stack(torch.gradient(critic.unflatten(0, (CELLS, CELLS)), spacing=width), 2)
    some = slice(1, None, EVERY)
    at = torch.cartesian_prod(centres[some], centres[some])
    return Field(at, gradients[some, some].flatten(0, 1))


@cache
def constrained() -> Field:
    """Return the gradients of the gradient-constrained critic on the same grid."""
    at = sobolev().at
    return Field(at, gradient_constrained(at))


def mass(at: Tensor) -> Tensor:
    """Return a mask of the points with at least a tenth of the largest density of mu."""
    mu = density(at, CENTRE) + density(at, -CENTRE)
    return mu >= 0.1 * mu.max()


def beyond(at: Tensor) -> Tensor:
    """Return a mask of the points to the right of Q, outside of its mass and close to the axis."""
    return (at[:, 0] > CENTRE + 3) & (at[:, 1] < 1)


def claims() -> list[Claim]:
    """Check the claims of Appendix B about the figure."""
    return [
        magnitudes("Sobolev", sobolev(), "magnitudes higher on the right than in areas of high density", True),
        magnitudes("gradient-constrained", constrained(), "not the case", False),
        direction("Sobolev", sobolev(), "opposite to the reference distribution"),
        direction("gradient-constrained", constrained(), "not said"),
        where_the_mass_is("Sobolev", sobolev()),
        where_the_mass_is("gradient-constrained", constrained()),
    ]


def magnitudes(name: str, field: Field, paper: str, expected: bool) -> Claim:
    """Claim that gradients to the right of Q are more than three times those in the mass of mu, or not."""
    lengths = field.gradients.norm(dim=1)
    outside, inside = lengths[beyond(field.at)].max().item(), lengths[mass(field.at)].max().item()
    here = f"up to {outside:.2g} on the right, up to {inside:.2g} in areas of high density"
    return Claim(f"{name}: size of gradients", paper, here, (outside > 3 * inside) == expected)


def direction(name: str, field: Field, paper: str) -> Claim:
    """Claim that the longest gradient to the right of Q points away from P."""
    outside = beyond(field.at)
    longest = field.gradients[outside].norm(dim=1).argmax()
    x, slope = field.at[outside][longest, 0].item(), field.gradients[outside][longest, 0].item()
    here = f"the longest one, at x = {x:.1f}, points {'away from' if slope > 0 else 'to'} P"
    return Claim(f"{name}: direction on the right", paper, here, slope > 0)


def where_the_mass_is(name: str, field: Field) -> Claim:
    """Claim that gradients point from Q to P where there is mass between their means."""
    path = mass(field.at) & (field.at[:, 0] < CENTRE)
    share = (field.gradients[path, 0] < 0).double().mean().item()
    return Claim(f"{name}: between the means", "a plan to move the mass", f"{share:.0%} point to P", share == 1)


def draw(figure: Figure) -> None:
    """Draw both fields."""
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, title, field in zip(
        panels, ("Gradient-constrained MMD", "Sobolev GAN"), (constrained(), sobolev()), strict=True
    ):
        _field(axes, title, field)


def whole(field: Field) -> Field:
    """Return the field on the whole square, since critics are odd in x and even in y."""
    parts = []
    for x, y in product((1.0, -1.0), repeat=2):
        mirror = field.at.new_tensor([x, y])
        parts.append((field.at * mirror, field.gradients * field.at.new_tensor([1, x * y])))
    return Field(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def _field(axes: Axes, title: str, quarter: Field) -> None:
    field = whole(quarter)
    longest = field.gradients.norm(dim=1).max().item()
    at = field.at.T.numpy()
    grid = torch.linspace(-BORDER, BORDER, 101, dtype=torch.float64)
    plane = torch.cartesian_prod(grid, grid).unflatten(0, (101, 101)).transpose(0, 1)
    for name, centre, color in (("P", -CENTRE, "tab:blue"), ("Q", CENTRE, "tab:red")):
        levels = [math.exp(-0.5 * radius**2) / math.tau for radius in (3, 2, 1)]
        axes.contour(
            grid.numpy(), grid.numpy(), density(plane, centre).numpy(), levels, colors=color, linewidths=1.2, zorder=3
        )
        axes.text(3 * centre, 2.4, name, color=color, weight="bold", fontsize="x-large", zorder=4)
    unit = torch.nn.functional.normalize(field.gradients).T.numpy()
    axes.quiver(*at, *unit, color="0.7", pivot="mid", scale=38, width=0.002, headwidth=5)
    axes.quiver(*at, *(field.gradients / longest).T.numpy(), color="black", pivot="mid", scale=10, width=0.003)
    axes.set(title=f"{title}: longest {longest:.2g}", xlim=(-BORDER, BORDER), ylim=(-BORDER, BORDER), aspect="equal")


if __name__ == "__main__":
    main(sys.modules[__name__])
