r"""Fig. S1 of Wang et al. (2019): the flow of a GAN with two parameters, and its equilibria by quadrature.

The generator is G(z) = w1 z with z ~ U(-1, 1), the discriminator is D(x) = w2 x^2, and the kernel is Gaussian with
sigma = 0.5. Both follow the gradients of their expected losses simultaneously: dw1/dt = -dL_G/dw1 and
dw2/dt = -dL_D/dw2. MMD-rbf has the attractive loss (lambda = -1), MMD-rep the repulsive one (lambda = 1). P_X is
U(-1, 1) or N(0, 1). Expectations are not sampled but computed by quadrature, to more digits than are shown.

Differences from the paper (Appendix A.2 of its submission):

* Its equilibria are approximate, apparently found from samples. For MMD-rbf, the exact one is (1.4839, 0.7959) and the
  paper's is (1.55, 0.74). For MMD-rep, they are (1.5536, 0.3071) and (1.55, 0.32). So the two losses do not have the
  same w1.
* According to the paper, a smaller learning rate of G shrinks the region from which MMD-rep converges to the trivial
  solution w2 = 0. In the flow of the expected losses this region grows, because the generator moves too slowly.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, jacrev, vmap
from torch.nn import functional as F

sys.path.append(str(Path(__file__).parents[2]))  # examples/

from figures.script import Claim, main

from torch_mmd_losses import RBFKernel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (9.0, 6.6)
KERNEL = RBFKernel(sigma=0.5)
REGION = (3.0, 1.5)
"""Largest w1 and w2 that are drawn. Neither loss depends on their signs."""
PRECISE = 256
"""Nodes of a rule that is exact in all digits shown."""
NODES = 64
"""Nodes of the rule for the picture."""
GRID = (61, 41)
"""Columns and rows of the grid on which the flow is computed for the picture."""
STARTS = (60, 30)
"""Columns and rows of starting points."""
ON_THE_LINE = (0.25, 0.5, 0.75, 1.0, 1.25)
"""Values of w2 at which the line of equilibria w1 = 1 is checked."""
GENERATOR_RATES = (0.1, 1.0, 10.0)
"""Learning rates of the generator. That of the discriminator is 1."""


class Rule(NamedTuple):
    """A quadrature rule for the square of a symmetric random variable. Both networks depend on this square alone."""

    squares: Tensor
    weights: Tensor


def uniform(nodes: int) -> Rule:
    """Return a rule for U(-1, 1): Gauss-Legendre on [0, 1]."""
    points, weights = np.polynomial.legendre.leggauss(nodes)
    return Rule(torch.from_numpy((points + 1) / 2).square(), torch.from_numpy(weights / 2))


def normal(nodes: int, end: float = 9.0) -> Rule:
    """Return a rule for N(0, 1): the trapezoidal rule on [0, end], which converges exponentially here."""
    points = torch.linspace(0, end, nodes, dtype=torch.float64)
    weights = torch.exp(-points.square() / 2)
    weights[0] /= 2
    return Rule(points.square(), weights / weights.sum())


class Case(NamedTuple):
    """A panel of the figure."""

    title: str
    lambda_: float
    real: Callable[[int], Rule]
    paper: tuple[float, float] | None = None
    """The paper's equilibrium, unless it is the line w1 = 1."""


CASES = (
    Case("(a) MMD-rbf, $P_X = U(-1, 1)$", -1.0, uniform),
    Case("(b) MMD-rep, $P_X = U(-1, 1)$", 1.0, uniform),
    Case("(c) MMD-rbf, $P_X = N(0, 1)$", -1.0, normal, (1.55, 0.74)),
    Case("(d) MMD-rep, $P_X = N(0, 1)$", 1.0, normal, (1.55, 0.32)),
)


def mean_kernel(a: Tensor, weights_a: Tensor, b: Tensor, weights_b: Tensor) -> Tensor:
    """Return E k(a, b) for scores `(m,)` and `(n,)` with their probabilities."""
    return weights_a @ KERNEL.from_sq_dist((a[:, None] - b).square()) @ weights_b


def losses(w: Tensor, case: Case, nodes: int) -> tuple[Tensor, Tensor]:
    """Return the expected losses of discriminator (Eq. 5) and generator (Eq. 2) at `w = (w1, w2)`."""
    real, latent = case.real(nodes), uniform(nodes)
    x, y = w[1] * real.squares, w[1] * w[0] ** 2 * latent.squares
    k_rr = mean_kernel(x, real.weights, x, real.weights)
    k_rf = mean_kernel(x, real.weights, y, latent.weights)
    k_ff = mean_kernel(y, latent.weights, y, latent.weights)
    return case.lambda_ * k_rr - (case.lambda_ - 1) * k_rf - k_ff, k_rr - 2 * k_rf + k_ff


def flow(w: Tensor, case: Case, nodes: int) -> Tensor:
    """Return the velocity `(2,)` of simultaneous gradient descent at `w = (w1, w2)`."""
    by_discriminator = grad(lambda at: losses(at, case, nodes)[0])(w)
    by_generator = grad(lambda at: losses(at, case, nodes)[1])(w)
    return -torch.stack([by_generator[0], by_discriminator[1]])


def jacobian(w: Tensor, case: Case, nodes: int) -> Tensor:
    """Return the derivative `(2, 2)` of the flow."""
    derivative: Tensor = jacrev(lambda at: flow(at, case, nodes))(w)
    return derivative


@cache
def equilibrium(case: Case, nodes: int = PRECISE) -> Tensor:
    """Return the equilibrium `(2,)` by Newton's method, started at the paper's."""
    w = torch.tensor(case.paper, dtype=torch.float64)
    for _ in range(20):
        step = torch.linalg.solve(jacobian(w, case, nodes), flow(w, case, nodes))
        w = w - step
        if step.abs().max() < 1e-12:
            return w
    raise ArithmeticError(f"{case.title}: Newton's method did not converge")


def growth_rate(w: Tensor, case: Case, nodes: int = PRECISE) -> float:
    """Return the largest real part of the Jacobian's eigenvalues. Perturbations decay if it is negative."""
    return torch.linalg.eigvals(jacobian(w, case, nodes)).real.max().item()


class Field(NamedTuple):
    """The flow on a grid over the region."""

    w1: Tensor
    w2: Tensor
    velocity: Tensor
    """`(len(w2), len(w1), 2)`."""


@cache
def field(case: Case) -> Field:
    """Return the flow on a grid over the region."""
    columns, rows = GRID
    w1 = torch.linspace(0, REGION[0], columns, dtype=torch.float64)
    w2 = torch.linspace(0, REGION[1], rows, dtype=torch.float64)
    points = torch.cartesian_prod(w2, w1).flip(1)
    velocity = vmap(lambda w: flow(w, case, NODES), chunk_size=columns)(points)
    return Field(w1, w2, velocity.reshape(rows, columns, 2))


def follow(field: Field, starts: Tensor, generator_rate: float, steps: int = 4000, step: float = 0.005) -> Tensor:
    """Return the ends `(n, 2)` of the paths from `starts` `(n, 2)`. Paths that leave the region stop at its border.

    The flow is interpolated between the points of the grid. It is rescaled, so that slow and fast parts of a path take
    a similar number of steps. This does not change the paths.
    """
    table = field.velocity.permute(2, 0, 1)[None]
    region = torch.tensor(REGION, dtype=torch.float64)
    rates = torch.tensor([generator_rate, 1.0], dtype=torch.float64)

    def velocity(w: Tensor) -> Tensor:
        places = (2 * w / region - 1)[None, None]
        found = rates * F.grid_sample(table, places, padding_mode="border", align_corners=True)[0, :, 0].T
        return found / (0.1 + found.norm(dim=1, keepdim=True))

    w = starts
    for _ in range(steps):
        middle = w + step / 2 * velocity(w)
        w = (w + step * velocity(middle)).clamp_min(0).minimum(region)
    return w


def starting_points() -> Tensor:
    """Return the centres `(n, 2)` of equal cells of the region, in rows of equal w2."""
    w1, w2 = ((torch.arange(n, dtype=torch.float64) + 0.5) * end / n for n, end in zip(STARTS, REGION, strict=True))
    return torch.cartesian_prod(w2, w1).flip(1)


@cache
def trivial(case: Case, generator_rate: float = 1.0) -> Tensor:
    """Return for each starting point whether its path ends at w2 = 0 and stays there."""
    ends = follow(field(case), starting_points(), generator_rate)
    near_zero = torch.stack([ends[:, 0], torch.full_like(ends[:, 0], 0.01)], 1)
    growth = vmap(lambda w: flow(w, case, NODES), chunk_size=64)(near_zero)[:, 1]
    return (ends[:, 1] < 0.01) & (growth < 0)


def critical_w1(case: Case, nodes: int = PRECISE) -> float:
    """Return the w1 above which the repulsive loss reduces a small w2 to zero.

    To lowest order in w2, the loss is -4 w2^2 (Var x^2 - w1^4 Var z^2) / (2 sigma^2) plus a constant.
    """

    def variance(rule: Rule) -> float:
        mean = rule.weights @ rule.squares
        return (rule.weights @ (rule.squares - mean).square()).item()

    return math.pow(variance(case.real(nodes)) / variance(uniform(nodes)), 0.25)


def claims() -> list[Claim]:
    """Check the claims of Appendix A.2."""
    realizable, others = CASES[:2], CASES[2:]
    return [
        *(line_of_equilibria(case) for case in realizable),
        *(claim for case in others for claim in about_equilibrium(case)),
        same_w1(*others),
        *(trivial_solutions(case) for case in CASES),
        *(smaller_rate(case) for case in CASES if case.lambda_ == 1),
    ]


def line_of_equilibria(case: Case) -> Claim:
    """Claim that the line w1 = 1 consists of equilibria and attracts its neighbourhood."""
    points = [torch.tensor([1.0, w2], dtype=torch.float64) for w2 in ON_THE_LINE]
    residual = max(flow(w, case, PRECISE).abs().max().item() for w in points)
    eigenvalues = torch.stack([torch.linalg.eigvals(jacobian(w, case, PRECISE)).real.sort().values for w in points])
    along, across = eigenvalues[:, 1].abs().max().item(), eigenvalues[:, 0].max().item()
    here = f"speed there <= {residual:.0e}; eigenvalues 0 along it and <= {across:.3f} across it, for w2 >= 0.25"
    holds = residual < 1e-12 and along < 1e-9 and across < -0.1
    return Claim(f"{case.title}: equilibria and stability", "the line w1 = 1, locally stable", here, holds)


def about_equilibrium(case: Case) -> list[Claim]:
    """Check the position and the stability of the equilibrium."""
    assert case.paper is not None
    w = equilibrium(case)
    change = (w - equilibrium(case, PRECISE // 2)).abs().max().item()
    here = f"({w[0]:.4f}, {w[1]:.4f}), which half of the nodes change by {change:.0e}"
    rounded = tuple(round(value, 2) for value in w.tolist())
    rate = growth_rate(w, case)
    return [
        Claim(
            f"{case.title}: equilibrium", str(case.paper), here, rounded == case.paper and change < 1e-5, departs=True
        ),
        Claim(f"{case.title}: local stability", "stable", f"perturbations decay at a rate of {-rate:.4f}", rate < 0),
    ]


def same_w1(one: Case, other: Case) -> Claim:
    """Claim that both losses have an equilibrium with the same w1."""
    w1, others_w1 = equilibrium(one)[0].item(), equilibrium(other)[0].item()
    here = f"{w1:.4f} and {others_w1:.4f}"
    same = abs(w1 - others_w1) < 0.005
    return Claim("MMD-rbf and MMD-rep on N(0, 1): the same w1", "1.55 for both", here, same, departs=True)


def trivial_solutions(case: Case) -> Claim:
    """Measure the share of starting points that end at w2 = 0."""
    share = trivial(case).double().mean().item()
    repulsive = case.lambda_ == 1
    here = f"{share:.1%} of the starts in the region"
    if repulsive:
        here += f"; small w2 go there if w1 > {critical_w1(case):.4f}"
    expected = "some starts lead to w2 = 0" if repulsive else "w2 = 0 is not mentioned for MMD-rbf"
    return Claim(f"{case.title}: trivial solutions", expected, here, (share > 0) == repulsive)


def smaller_rate(case: Case) -> Claim:
    """Claim that a smaller learning rate of G shrinks the region of trivial solutions."""
    shares = [trivial(case, rate).double().mean().item() for rate in GENERATOR_RATES]
    here = ", ".join(f"{share:.1%} at rate {rate:g}" for share, rate in zip(shares, GENERATOR_RATES, strict=True))
    shrinks = shares == sorted(shares)
    what = f"{case.title}: region of trivial solutions and learning rate of G"
    return Claim(what, "smaller for smaller rates", here, shrinks, departs=True)


def draw(figure: Figure) -> None:
    """Draw the four panels."""
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    for axes, case in zip(panels.flat, CASES, strict=True):
        _panel(axes, case)
    for axes in panels[1]:
        axes.set_xlabel("$w_1$ (generator)")
    for axes in panels[:, 0]:
        axes.set_ylabel("$w_2$ (discriminator)")
    _legend(figure)


def _panel(axes: Axes, case: Case) -> None:
    w1, w2, velocity = field(case)
    width, height = REGION
    shade = trivial(case).reshape(STARTS[::-1]).double()
    axes.imshow(
        shade.numpy(), extent=(0, width, 0, height), origin="lower", aspect="auto", cmap="Greys", vmin=0, vmax=5
    )
    u, v = velocity.unbind(-1)
    axes.streamplot(w1.numpy(), w2.numpy(), u.numpy(), v.numpy(), density=1.2, linewidth=0.8, color="steelblue")
    axes.axhline(0, color="tab:red", linewidth=3, linestyle=":")
    if case.paper is None:
        axes.axvline(1, color="tab:red", linewidth=3)
    else:
        x, y = equilibrium(case).tolist()
        axes.plot(x, y, "o", color="tab:red", markersize=9, zorder=5)
        axes.plot(*case.paper, "x", color="black", markersize=8, markeredgewidth=2, zorder=6)
        box = {"facecolor": "white", "edgecolor": "0.8", "alpha": 0.9}
        axes.text(
            0.97,
            0.95,
            f"exact ({x:.4f}, {y:.4f})\npaper {case.paper}",
            bbox=box,
            horizontalalignment="right",
            verticalalignment="top",
            transform=axes.transAxes,
        )
    axes.set(xlim=(0, width), ylim=(-0.02, height), title=case.title)


def _legend(figure: Figure) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Line2D([], [], color="tab:red", marker="o", linewidth=3, label="equilibria"),
        Line2D([], [], color="black", marker="x", linestyle="", markeredgewidth=2, label="the paper's"),
        Line2D([], [], color="tab:red", linestyle=":", linewidth=3, label="trivial equilibria, $w_2 = 0$"),
        Patch(color="0.85", label="starting points that lead there"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)


if __name__ == "__main__":
    main(sys.modules[__name__])
