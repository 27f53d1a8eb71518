r"""Fig. 2 of Wang et al. (2019): Gaussian and rational quadratic kernels and their derivatives by the distance.

The slope of a Gaussian kernel is steepest at the distance sigma, where it is exp(-1/2) / sigma. That of a rational
quadratic kernel is steepest at sqrt(2 alpha / (2 alpha + 1)), which is below 1 for all alpha. At much smaller and much
larger distances, the derivative is almost zero: the kernel is saturated. The range of a kernel is defined here as the
distances at which its derivative is at least a tenth of the largest one.

Remarks on the paper:

* Its sums of five kernels appear in the figure as means, a fifth of the library's `RBFMix()` and
  `RationalQuadraticMix()`.
* According to the paper, a mixture may alleviate saturation. The mixture of Gaussian kernels has a wider range than
  each of its parts. The mixture of rational quadratic kernels has not: kernels with small alpha alone have heavy
  tails, and near zero all are 1 - e^2 / 2 to second order.
* The rational quadratic kernel is the mixture of Gaussian kernels in which 1 / sigma^2 has the distribution
  Gamma(alpha, rate alpha). The paper says Gamma(alpha, 1) of 1 / sigma, which would be another kernel.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parents[2]))  # examples/

from figures.script import Claim, main

from torch_mmd_losses import Kernel, RationalQuadraticKernel, RationalQuadraticMix, RBFKernel, RBFMix

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (9.0, 6.0)
END = 10.0
"""The largest distance that is drawn."""
SIGMAS = RBFMix().sigmas
ALPHAS = RationalQuadraticMix().alphas


class Curve(NamedTuple):
    """A kernel of one panel."""

    label: str
    kernel: Kernel


GAUSSIAN = (
    *(
        Curve(rf"$\sigma = {label}$", RBFKernel(s))
        for s, label in zip(SIGMAS, ("1", r"\sqrt{2}", "2", r"2\sqrt{2}", "4"), strict=True)
    ),
    Curve("mean", RBFMix() * (1 / len(SIGMAS))),
)
RATIONAL_QUADRATIC = (
    *(Curve(rf"$\alpha = {alpha:g}$", RationalQuadraticKernel(alpha)) for alpha in ALPHAS),
    Curve("mean", RationalQuadraticMix() * (1 / len(ALPHAS))),
)


def distances(end: float = END, count: int = 20001) -> Tensor:
    """Return distances `(count,)` from 0 to `end`."""
    return torch.linspace(0, end, count, dtype=torch.float64)


def value(kernel: Kernel, distance: Tensor) -> Tensor:
    """Return kernel values at distances `(n,)`."""
    return kernel(distance.new_zeros(1), distance)[0]


def derivative(kernel: Kernel, distance: Tensor) -> Tensor:
    """Return the derivatives of a kernel by the distance, at distances `(n,)`."""
    distance = distance.detach().requires_grad_()
    return torch.autograd.grad(value(kernel, distance).sum(), distance)[0]


def steepest(kernel: Kernel) -> tuple[float, float]:
    """Return the distance with the steepest slope of a kernel on a fine grid, and the slope."""
    grid = distances()
    slopes = derivative(kernel, grid)
    at = slopes.argmin()
    return grid[at].item(), slopes[at].item()


def rbf_steepest(sigma: float) -> tuple[float, float]:
    """Return the result of `steepest` for a Gaussian kernel in closed form."""
    return sigma, -math.exp(-0.5) / sigma


def rational_quadratic_steepest(alpha: float) -> tuple[float, float]:
    """Return the result of `steepest` for a rational quadratic kernel in closed form."""
    square = 2 * alpha / (2 * alpha + 1)
    return math.sqrt(square), -math.sqrt(square) * (1 + square / (2 * alpha)) ** (-alpha - 1)


def active_range(kernel: Kernel, share: float = 0.1) -> tuple[float, float]:
    """Return the smallest and the largest distance at which the derivative is at least a share of its largest value."""
    # Logarithmic, because heavy tails extend the range to large distances.
    grid = torch.logspace(-3, 3, 60001, dtype=torch.float64)
    slopes = -derivative(kernel, grid)
    inside = grid[slopes >= share * slopes.max()]
    return inside[0].item(), inside[-1].item()


def claims() -> list[Claim]:
    """Check the claims of Section 4.1 about the figure."""
    return [
        maxima("Gaussian kernels", GAUSSIAN, [rbf_steepest(sigma) for sigma in SIGMAS]),
        maxima(
            "rational quadratic kernels", RATIONAL_QUADRATIC, [rational_quadratic_steepest(alpha) for alpha in ALPHAS]
        ),
        saturation("Gaussian kernels", GAUSSIAN),
        saturation("rational quadratic kernels", RATIONAL_QUADRATIC),
        alleviation("Gaussian kernels", GAUSSIAN),
        alleviation("rational quadratic kernels", RATIONAL_QUADRATIC, departs=True),
        same_start(),
    ]


def maxima(what: str, curves: Sequence[Curve], expected: Sequence[tuple[float, float]]) -> Claim:
    """Claim that the steepest slopes are those of the closed forms. The paper only draws them."""
    found = [steepest(curve.kernel) for curve in curves[:-1]]
    spacing = END / (len(distances()) - 1)
    errors = [max(abs(e - x), abs(slope - y)) for (e, slope), (x, y) in zip(found, expected, strict=True)]
    here = ", ".join(f"{slope:.4f} at {e:.4f}" for e, slope in expected)
    return Claim(f"{what}: steepest", "drawn", here, max(errors) <= spacing)


def saturation(what: str, curves: Sequence[Curve]) -> Claim:
    """Claim that kernels are saturated at distance zero and at large distances."""
    at_zero = max(derivative(curve.kernel, torch.zeros(1, dtype=torch.float64)).abs().item() for curve in curves)
    ranges = [active_range(curve.kernel) for curve in curves]
    here = "; ".join(f"{low:.3f} to {high:.2f}" for low, high in ranges) + " (the last is the mean)"
    return Claim(
        f"{what}: range",
        "saturated if too near or too far",
        here,
        at_zero == 0 and all(0 < a < b < 999 for a, b in ranges),
    )


def alleviation(what: str, curves: Sequence[Curve], *, departs: bool = False) -> Claim:
    """Claim that the range of a mixture, as the ratio of its ends, is wider than that of each of its parts."""
    *single, mixed = (high / low for low, high in (active_range(curve.kernel) for curve in curves))
    here = f"ends at {mixed:.0f} times the distance where it starts; single kernels: " + ", ".join(
        f"{ratio:.0f}" for ratio in single
    )
    return Claim(f"mixture of {what}: range", "a mixture may alleviate saturation", here, mixed > max(single), departs)


def same_start() -> Claim:
    """Claim that all rational quadratic kernels are 1 - e^2 / 2 near zero, so a mixture does not help there."""
    tiny = torch.tensor([1e-3], dtype=torch.float64)
    slopes = [(derivative(curve.kernel, tiny) / tiny).item() for curve in RATIONAL_QUADRATIC]
    here = f"second derivatives at zero from {min(slopes):.4f} to {max(slopes):.4f}"
    return Claim("rational quadratic kernels: small distances", "drawn", here, all(abs(s + 1) < 1e-5 for s in slopes))


def draw(figure: Figure) -> None:
    """Draw the kernels on the left and their derivatives on the right, with the Gaussian ones above."""
    panels = figure.subplots(2, 2, sharex=True)
    letters = iter("abcd")
    for row, (name, curves) in zip(
        panels, (("Gaussian", GAUSSIAN), ("Rational quadratic", RATIONAL_QUADRATIC)), strict=True
    ):
        for axes, (what, function) in zip(row, (("kernels", value), ("derivatives", derivative)), strict=True):
            axes.set_title(f"({next(letters)}) {name}: {what}")
            _panel(axes, curves, function)
        row[0].legend(fontsize=9)
        row[0].set(ylim=(-0.02, 1.02), ylabel=r"$k(a, b)$")
        row[1].set(ylim=(-0.64, 0.02), ylabel=r"$\partial k / \partial e$")
    for axes in panels[1]:
        axes.set_xlabel(r"distance $e = \|a - b\|$")


def _panel(axes: Axes, curves: Sequence[Curve], function: Callable[[Kernel, Tensor], Tensor]) -> None:
    grid = distances(count=401)
    for number, (label, kernel) in enumerate(curves):
        mean = label == "mean"
        style = {"color": "black", "linestyle": "--", "linewidth": 2} if mean else {"color": f"C{number}"}
        axes.plot(grid.numpy(), function(kernel, grid).numpy(), label=label, **style)
        if function is derivative:
            at, slope = steepest(kernel)
            axes.plot(at, slope, "o", markersize=5, color=style["color"])
    axes.grid(alpha=0.3)
    axes.set_xlim(0, END)


if __name__ == "__main__":
    main(sys.modules[__name__])
