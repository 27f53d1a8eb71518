r"""Fig. 1 of Arbel et al. (2018): a generator and a critic with one parameter each, for point masses.

The data are a point mass at 0, and the generator's samples a point mass at theta. The kernel is Gaussian on the feature
psi x. The generator descends a distance along theta, and the critic ascends it along psi:

* MMD^2 = 2 (1 - exp(-psi^2 theta^2 / 2)), Eq. 3;
* MMD^2 with a gradient penalty for the critic as in MMD-GAN-GP, `E (|eta'(t)| - 1)^2` for the witness eta and t uniform
  between 0 and theta;
* the scaled MMD with mu at the data, MMD^2 / (lambda + 1 + psi^2) by Proposition 5, with lambda = 1.

Where |psi theta| is large, MMD^2 is near its maximum and has almost no gradient. The paper gives no coordinates for its
points. Here they are A = (2, 0.5) and B = (4, 2) as (theta, psi). Gradient steps are simultaneous, with the learning
rate 0.1. With the penalty, psi shrinks from B until MMD^2 begins to fall. There the gradients of MMD^2 and of the
penalty cancel, and theta hardly moves.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import grad, vmap

sys.path.append(str(Path(__file__).parents[2]))  # examples/

from figures.script import Claim, main

from torch_mmd_losses import RBFKernel, gradient_constrained_mmd2, mmd2

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (10.0, 7.4)
LAMBDA = 1.0
REGION = (5.0, 4.0)
"""Largest theta and psi that are drawn."""
GRID = (26, 21)
A, B = (2.0, 0.5), (4.0, 2.0)
STEPS = 1000
RATE = 0.1
ARRIVED = 0.01
"""Distance of theta to 0 at which a path ends."""
INTERPOLATES = 100
FAR = 20.0
"""Theta of the critics that are drawn."""


def squared_mmd(theta: Tensor, psi: Tensor) -> Tensor:
    """Return MMD^2, Eq. 3."""
    return 2 * (1 - torch.exp(-0.5 * (psi * theta) ** 2))


def scale(psi: Tensor) -> Tensor:
    """Return the squared factor of the scaled MMD by Proposition 5, with k(0, 0) = 1 and a feature of slope psi."""
    return 1 / (LAMBDA + 1 + psi**2)


def squared_scaled_mmd(theta: Tensor, psi: Tensor) -> Tensor:
    """Return the squared scaled MMD."""
    return scale(psi) * squared_mmd(theta, psi)


def witness(t: Tensor, theta: Tensor | float, psi: Tensor | float) -> Tensor:
    """Return the witness function at t, the difference of the mean embeddings."""
    return torch.exp(-0.5 * (psi * t) ** 2) - torch.exp(-0.5 * (psi * (t - theta)) ** 2)


def penalised(theta: Tensor, psi: Tensor) -> Tensor:
    """Return MMD^2 minus the gradient penalty of the witness, which the critic ascends."""
    t = theta * (torch.arange(INTERPOLATES, dtype=torch.float64) + 0.5) / INTERPOLATES
    slope = -(psi**2) * (
        t * torch.exp(-0.5 * (psi * t) ** 2) - (t - theta) * torch.exp(-0.5 * (psi * (t - theta)) ** 2)
    )
    return squared_mmd(theta, psi) - (slope.abs() - 1).square().mean()


Distance = Callable[[Tensor, Tensor], Tensor]

PANELS: dict[str, tuple[Distance, Distance]] = {
    "MMD": (squared_mmd, squared_mmd),
    "MMD with gradient penalty": (squared_mmd, penalised),
    "scaled MMD": (squared_scaled_mmd, squared_scaled_mmd),
}
"""The functions that the generator descends and the critic ascends."""


def field(panel: str, points: Tensor) -> Tensor:
    """Return the velocities `(n, 2)` at `(theta, psi)` `(n, 2)`."""
    generator, critic = PANELS[panel]
    by_theta, by_psi = vmap(grad(generator)), vmap(grad(critic, 1))
    return torch.stack([-by_theta(*points.unbind(1)), by_psi(*points.unbind(1))], 1)


@cache
def paths(panel: str) -> Tensor:
    """Return the parameters `(STEPS + 1, 2, 2)` of gradient steps from A and from B."""
    places = [torch.tensor([A, B], dtype=torch.float64)]
    for _ in range(STEPS):
        places.append(places[-1] + RATE * field(panel, places[-1]))
    return torch.stack(places)


def path(panel: str, start: tuple[float, float]) -> Tensor:
    """Return the parameters of gradient steps from A or from B, until theta has arrived."""
    places = paths(panel)[:, (A, B).index(start)]
    arrived = (places[:, 0].abs() < ARRIVED).nonzero()
    return places[: int(arrived[0]) + 1] if len(arrived) else places


def best_psi(theta: float) -> float:
    """Return the psi > 0 with the largest scaled MMD, on a fine grid."""
    psi = torch.logspace(-4, 2, 60001, dtype=torch.float64)
    return psi[squared_scaled_mmd(torch.tensor(theta), psi).argmax()].item()


def claims() -> list[Claim]:
    """Check the claims of Sections 2 and 3.2 about the figure."""
    return [
        equation_3(),
        not_weak(),
        arrives("MMD", A, "some sequences converge", True),
        arrives("MMD", B, "stuck, as there is essentially no gradient", False),
        arrives("MMD with gradient penalty", A, "not substantially changed", True),
        arrives("MMD with gradient penalty", B, "not substantially changed", False),
        arrives("scaled MMD", A, "converges", True),
        arrives("scaled MMD", B, "converges in very few steps", True),
        weak(),
        below_gradient_constrained(),
        *critics(),
    ]


def equation_3() -> Claim:
    """Claim that the library's MMD^2 of point masses is Eq. 3."""
    points = grid()
    by_library = [mmd2(p[:1] * 0, p[:1] * p[1], RBFKernel(), estimator="biased") for p in points]
    error = (torch.stack(by_library) - squared_mmd(*points.unbind(1))).abs().max().item()
    return Claim("Eq. 3", "2 (1 - exp(-psi^2 theta^2 / 2))", f"mmd2 differs by at most {error:.0e}", error < 1e-12)


def not_weak() -> Claim:
    """Claim that the optimised MMD jumps from 0 to sqrt(2)."""
    found = [squared_mmd(torch.tensor(theta), torch.tensor(10 / theta)).sqrt().item() for theta in (1.0, 1e-2, 1e-4)]
    here = ", ".join(f"{value:.6f}" for value in found) + " at theta = 1, 0.01, 0.0001"
    holds = all(abs(value - math.sqrt(2)) < 1e-6 for value in found)
    return Claim("optimised MMD", "sqrt(2) = 1.414214 for all theta > 0: not weak", here, holds)


def weak() -> Claim:
    """Claim that the optimised scaled MMD goes to zero with theta."""
    thetas = (1.0, 1e-2, 1e-4)
    found = [squared_scaled_mmd(torch.tensor(t), torch.tensor(best_psi(t))).sqrt().item() for t in thetas]
    here = ", ".join(f"{value:.2g}" for value in found) + " at theta = 1, 0.01, 0.0001"
    return Claim("optimised scaled MMD", "weak", here, all(v <= t for v, t in zip(found, thetas, strict=True)))


def arrives(panel: str, start: tuple[float, float], paper: str, expected: bool) -> Claim:
    """Claim that gradient steps take theta to 0, or that they do not."""
    places = path(panel, start)
    at, steps = places[-1], len(places) - 1
    speed = (places[1] - places[0]).norm().item() / RATE
    came = f"at ({at[0]:.4f}, {at[1]:.4f}) after {steps} steps, first speed {speed:.1g}"
    name = "A" if start == A else "B"
    return Claim(f"{panel}: from {name} = {start}", paper, came, (at[0].abs().item() < ARRIVED) == expected)


def below_gradient_constrained() -> Claim:
    """Claim that the scaled MMD is a lower bound of the gradient-constrained MMD."""
    shares = torch.stack(
        [
            squared_scaled_mmd(*p)
            / gradient_constrained_mmd2(p[:1] * 0, p[:1], RBFKernel(), lambda_=LAMBDA, features=p[1].mul)
            for p in grid()[::7]
            if p[0] > 0 and p[1] > 0
        ]
    )
    here = f"{shares.min():.2f} to {shares.max():.2f} of the squares"
    return Claim("scaled and gradient-constrained MMD", "SMMD <= S", here, shares.max().item() <= 1)


def critics() -> list[Claim]:
    """Check the slopes of the critics of theta = 20 at the generated sample."""
    at = torch.tensor(FAR, dtype=torch.float64)
    slopes = {label: abs(grad(critic)(at).item()) for label, critic in drawn_critics().items()}
    here = ", ".join(f"{slope:.1g} ({label})" for label, slope in slopes.items())
    sharp, fixed, scaled = slopes.values()
    return [
        Claim(
            "critics at theta = 20: slope at the generated sample", "only drawn", here, scaled > 1e-4 > sharp + fixed
        ),
        Claim(
            "best psi for theta = 20",
            "critic of the scaled MMD is smooth",
            f"{best_psi(FAR):.3f}",
            best_psi(FAR) * FAR < 5,
        ),
    ]


def drawn_critics() -> dict[str, Callable[[Tensor], Tensor]]:
    """Return the optimal critics of theta = 20: of MMD with a large psi and with psi = 1, and of the scaled MMD."""

    def critic(psi: float, factor: float = 1.0) -> Callable[[Tensor], Tensor]:
        size = math.sqrt(2 * (1 - math.exp(-0.5 * (psi * FAR) ** 2)))
        return lambda t: factor * witness(t, FAR, psi) / size

    best = best_psi(FAR)
    return {
        r"MMD, $\psi = 10$": critic(10.0),
        r"MMD, $\psi = 1$": critic(1.0),
        rf"scaled MMD, best $\psi = {best:.2f}$": critic(best, math.sqrt(scale(torch.tensor(best)).item())),
    }


def grid() -> Tensor:
    """Return points `(n, 2)` over the region, rows of equal psi."""
    theta, psi = (torch.linspace(0, end, n, dtype=torch.float64) for end, n in zip(REGION, GRID, strict=True))
    return torch.cartesian_prod(psi, theta).flip(1)


def draw(figure: Figure) -> None:
    """Draw the three fields and the critics."""
    panels = figure.subplots(2, 2)
    for axes, panel in zip(panels.flat, PANELS, strict=False):
        _field(axes, panel)
    _critics(panels[1, 1])


def _field(axes: Axes, panel: str) -> None:
    points = grid()
    velocity = field(panel, points)
    speed = velocity.norm(dim=1)
    shape = GRID[::-1]
    image = axes.imshow(
        speed.clamp_min(1e-6).log10().reshape(shape).numpy(),
        extent=(0, REGION[0], 0, REGION[1]),
        origin="lower",
        aspect="auto",
        cmap="Blues",
        vmin=-6,
        vmax=1,
    )
    unit = torch.nn.functional.normalize(velocity)[speed > 1e-12]
    kept = points[speed > 1e-12]
    axes.quiver(*kept.T.numpy(), *unit.T.numpy(), angles="xy", scale=32, width=0.0028, color="0.25")
    for name, start in (("A", A), ("B", B)):
        axes.plot(*path(panel, start).T.numpy(), color="tab:red", linewidth=2)
        axes.plot(*start, "o", color="tab:red")
        axes.annotate(name, start, xytext=(6, 6), textcoords="offset points", color="tab:red", weight="bold")
    axes.axvline(0, color="tab:green", linewidth=4)
    axes.set(xlim=(0, REGION[0]), ylim=(0, REGION[1]), title=panel, xlabel=r"$\theta$", ylabel=r"$\psi$")
    axes.figure.colorbar(image, ax=axes, label=r"$\log_{10}$ speed")


def _critics(axes: Axes) -> None:
    t = torch.linspace(-10, FAR + 10, 3001, dtype=torch.float64)
    for (label, critic), color in zip(drawn_critics().items(), ("tab:red", "tab:blue", "tab:green"), strict=True):
        axes.plot(t.numpy(), critic(t).numpy(), color=color, label=label)
    axes.axvline(0, color="0.6", linestyle=":")
    axes.axvline(FAR, color="0.6", linestyle=":")
    axes.set(title=r"optimal critics for $\theta = 20$", xlabel="$t$", ylabel="$f(t)$")
    axes.legend(fontsize="small")


if __name__ == "__main__":
    main(sys.modules[__name__])
