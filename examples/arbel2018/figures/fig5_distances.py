r"""Fig. 5 of Arbel et al. (2018): six distances between one-dimensional Gaussians.

P is N(0, 0.1^2), Q is N(m, s^2), the kernel is Gaussian with the bandwidth psi, and lambda = 1 with mu = P. MMD and
scaled MMD are closed forms, since for x from N(a, s^2) and y from N(b, t^2)

    E k(x, y) = psi / sqrt(psi^2 + s^2 + t^2) exp(-(a - b)^2 / (2 (psi^2 + s^2 + t^2))).

The gradient-constrained MMD is computed by the library from equally many quantiles of P and Q. "Optimised" distances
are maxima over a grid of bandwidths. The paper gives no axes. Here m goes from 0 to 1, and s from 0.02 to 1.

According to the paper, optimising the MMD "would yield essentially one everywhere". In fact, the optimised MMD is 0 for
Q = P, sqrt(2) for distant Q, and near one for most Q in between.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import vmap

sys.path.append(str(Path(__file__).parents[2]))  # examples/

from figures.script import Claim, main

from torch_mmd_losses import RBFKernel, gradient_constrained_mmd2, mmd2

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = (8.0, 8.4)
LAMBDA = 1.0
SPREAD = 0.1
"""Standard deviation of P."""
BANDWIDTHS = (0.1, 10.0)
SEARCHED = torch.logspace(-2, 1.5, 29, dtype=torch.float64).tolist()
"""Bandwidths over which distances are optimised."""
GRID = (24, 25)
"""Number of values of m and of s."""
QUANTILES = 40


def others() -> Tensor:
    """Return `(m, s)` of each Q, `(n, 2)`, rows of equal s."""
    means = torch.linspace(0, 1, GRID[0], dtype=torch.float64)
    spreads = torch.linspace(0.02, 1, GRID[1], dtype=torch.float64)
    return torch.cartesian_prod(spreads, means).flip(1)


def squared_mmd(bandwidth: float) -> Tensor:
    """Return MMD^2 between P and each Q in closed form."""
    means, spreads = others().unbind(1)

    def mean_kernel(gap: Tensor | float, variance: Tensor | float) -> Tensor:
        total = bandwidth**2 + torch.as_tensor(variance, dtype=torch.float64)
        return bandwidth * total.rsqrt() * torch.exp(-0.5 * torch.as_tensor(gap) ** 2 / total)

    within = mean_kernel(0.0, 2 * SPREAD**2) + mean_kernel(0.0, 2 * spreads**2)
    return within - 2 * mean_kernel(means, SPREAD**2 + spreads**2)


def squared_scaled_mmd(bandwidth: float) -> Tensor:
    """Return the squared scaled MMD, since k(a, a) = 1 and its derivative by both arguments is 1 / psi^2."""
    return squared_mmd(bandwidth) / (LAMBDA + 1 + bandwidth**-2)


def quantiles(means: Tensor, spreads: Tensor) -> Tensor:
    """Return quantiles of each Gaussian, `(n, QUANTILES)`, at equidistant levels."""
    levels = (torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES
    return means.unsqueeze(1) + spreads.unsqueeze(1) * torch.special.ndtri(levels)


def samples() -> tuple[Tensor, Tensor]:
    """Return quantiles of P, `(QUANTILES,)`, and of each Q."""
    zero = torch.zeros(1, dtype=torch.float64)
    return quantiles(zero, zero + SPREAD)[0], quantiles(*others().unbind(1))


@cache
def squared_gradient_constrained(bandwidth: float) -> Tensor:
    """Return the squared gradient-constrained MMD between P and each Q."""
    real, fakes = samples()
    kernel = RBFKernel(bandwidth)
    return vmap(lambda fake: gradient_constrained_mmd2(real, fake, kernel, lambda_=LAMBDA), chunk_size=100)(fakes)


@cache
def panels() -> dict[str, Tensor]:
    """Return the distances between P and each Q that the figure shows."""
    low, high = BANDWIDTHS
    squares = {
        rf"MMD, $\psi = {low}$": squared_mmd(low),
        rf"MMD, $\psi = {high:g}$": squared_mmd(high),
        rf"gradient-constrained MMD, $\psi = {low}$": squared_gradient_constrained(low),
        rf"gradient-constrained MMD, $\psi = {high:g}$": squared_gradient_constrained(high),
        "optimised scaled MMD": torch.stack([squared_scaled_mmd(b) for b in SEARCHED]).amax(0),
        "optimised gradient-constrained MMD": torch.stack([squared_gradient_constrained(b) for b in SEARCHED]).amax(0),
    }
    return {title: square.sqrt() for title, square in squares.items()}


def alike(one: Tensor, other: Tensor) -> float:
    """Return the correlation of the logarithms of two distances over all Q."""
    return torch.corrcoef(torch.stack([one.log(), other.log()]))[0, 1].item()


def claims() -> list[Claim]:
    """Check the claims of Appendix D.1 about the figure."""
    mmd_low, mmd_high, limited_low, limited_high, scaled, limited = panels().values()
    return [
        discretisation(),
        similar("psi = 0.1: MMD and gradient-constrained MMD", mmd_low, limited_low),
        similar("psi = 10: MMD and gradient-constrained MMD", mmd_high, limited_high),
        similar("optimised: scaled and gradient-constrained MMD", scaled, limited),
        bounded("psi = 0.1", squared_scaled_mmd(BANDWIDTHS[0]).sqrt(), limited_low),
        bounded("psi = 10", squared_scaled_mmd(BANDWIDTHS[1]).sqrt(), limited_high),
        bounded("optimised", scaled, limited),
        optimised_mmd(),
    ]


def discretisation() -> Claim:
    """Claim that the MMD of the quantiles is near that of the Gaussians."""
    real, fakes = samples()
    worst = 0.0
    for bandwidth in BANDWIDTHS:
        kernel = RBFKernel(bandwidth)
        found = vmap(lambda fake, k=kernel: mmd2(real, fake, k, estimator="biased"), chunk_size=100)(fakes)
        worst = max(worst, (found.sqrt() - squared_mmd(bandwidth).sqrt()).abs().max().item())
    return Claim(f"MMD of {QUANTILES} quantiles", "not said", f"off by at most {worst:.4f}", worst < 0.02)


def similar(what: str, one: Tensor, other: Tensor) -> Claim:
    """Claim that the logarithms of two distances are strongly correlated."""
    correlation = alike(one, other)
    return Claim(what, "behave similarly", f"logarithms correlate by {correlation:.4f}", correlation > 0.9)


def bounded(what: str, scaled: Tensor, limited: Tensor) -> Claim:
    """Claim that the scaled MMD is a lower bound."""
    ratio = scaled / limited
    here = f"{ratio.min():.3f} to {ratio.max():.3f} of S"
    # The tolerance is for the error of the quantiles, which only the gradient-constrained MMD has.
    return Claim(f"{what}: scaled and gradient-constrained MMD", "SMMD <= S", here, ratio.max().item() <= 1.01)


def optimised_mmd() -> Claim:
    """Claim that the optimised MMD is close to one everywhere."""
    best = torch.stack([squared_mmd(b) for b in SEARCHED]).amax(0).sqrt()
    near = ((best - 1).abs() < 0.3).double().mean().item()
    here = f"{best.min():.2f} to {best.max():.2f}, within 0.3 of one for {near:.0%} of the Q"
    everywhere = near == 1
    return Claim("optimised MMD", "essentially one everywhere", here, everywhere, departs=True)


def draw(figure: Figure) -> None:
    """Draw the six distances."""
    means, spreads = others().unbind(1)
    extent = (means.min().item(), means.max().item(), spreads.min().item(), spreads.max().item())
    axes = figure.subplots(3, 2, sharex=True, sharey=True)
    for panel, (title, distance) in zip(axes.flat, panels().items(), strict=True):
        image = panel.imshow(
            distance.log().reshape(GRID[::-1]).numpy(), extent=extent, origin="lower", aspect="auto", cmap="viridis"
        )
        panel.contour(
            distance.log().reshape(GRID[::-1]).numpy(), 8, extent=extent, colors="white", linewidths=0.5, linestyles="-"
        )
        panel.plot(0, SPREAD, "o", color="white", markeredgecolor="black", clip_on=False)
        panel.set_title(title, fontsize="medium")
        figure.colorbar(image, ax=panel)
    for panel in axes[-1]:
        panel.set_xlabel("$m$")
    for panel in axes[:, 0]:
        panel.set_ylabel("$s$")


if __name__ == "__main__":
    main(sys.modules[__name__])
