r"""Fig. 1 of Wang et al. (2019): the directions in which each loss pushes scores that can move freely.

The arrows are minus the gradients of a loss with respect to the scores of real (r) and generated (g) samples. There is
one arrow for the mean kernel values that the loss increases (attraction) and one for those that it decreases
(repulsion).

In panel (a), the real and generated scores are side by side, as the attractive loss leaves them. In (b) and (c), the
generated scores are surrounded by the real ones, as the repulsive loss leaves them. The generator's loss is the same
function for both discriminator losses. Its two parts therefore agree in (c) only because of the layout. They oppose
each other in the layout of (a), and also if the surrounding real scores lie on a circle of radius below
sqrt(2) sigma.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parents[2]))  # examples/

from figures.script import Claim, main

from torch_mmd_losses import MMDLoss, RBFKernel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (9.0, 3.8)
KERNEL = RBFKernel(sigma=1.0)
LONGEST = 0.5
"""Drawn length of the longest arrow of a panel, in units of sigma."""
NODE = 0.13
"""Radius of the circle that is drawn for a score."""


class Layout(NamedTuple):
    """Scores of real and of generated samples, `(6, 2)` each."""

    real: Tensor
    fake: Tensor


class Weights(NamedTuple):
    """The factors of E k(x, x'), E k(x, y) and E k(y, y') in a loss."""

    real: float
    cross: float
    fake: float


class Forces(NamedTuple):
    """The two parts of minus the gradient of a loss, `(12, 2)`: six real scores, then six generated ones."""

    attraction: Tensor
    repulsion: Tensor

    @property
    def total(self) -> Tensor:
        """Minus the whole gradient."""
        return self.attraction + self.repulsion

    def of_fake(self) -> Forces:
        """Return the forces on the generated scores, `(6, 2)`."""
        return Forces(*(part[len(part) // 2 :] for part in self))

    def cosines(self) -> Tensor:
        """Return the cosine of the angle between both parts, for each score."""
        return torch.cosine_similarity(self.attraction, self.repulsion)

    def kept(self) -> Tensor:
        """Return the length of the sum of both parts divided by the sum of their lengths, for each score."""
        return self.total.norm(dim=1) / (self.attraction.norm(dim=1) + self.repulsion.norm(dim=1))


ATTRACTIVE = Weights(real=-1.0, cross=2.0, fake=-1.0)
REPULSIVE = Weights(real=1.0, cross=0.0, fake=-1.0)
GENERATOR = Weights(real=1.0, cross=-2.0, fake=1.0)


def forces(layout: Layout, weights: Weights) -> Forces:
    """Return the attraction and the repulsion of the scores by a loss."""
    scores = torch.cat(layout).requires_grad_()
    real, fake = scores.split([len(part) for part in layout])
    means = mean_within(real), KERNEL(real, fake).mean(), mean_within(fake)

    def part(sign: float) -> Tensor:
        loss = sum(
            (max(sign * weight, 0.0) * sign * mean for weight, mean in zip(weights, means, strict=True)), 0 * real.sum()
        )
        return -torch.autograd.grad(loss, scores, retain_graph=True)[0]

    return Forces(attraction=part(-1.0), repulsion=part(1.0))


def mean_within(scores: Tensor) -> Tensor:
    """Return the mean kernel value of pairs of different scores."""
    gram, count = KERNEL(scores, scores), len(scores)
    return (gram.sum() - gram.diagonal().sum()) / (count * (count - 1))


def ring(radius: float, turn: float) -> Tensor:
    """Return six equidistant points `(6, 2)` on a circle around zero."""
    angles = torch.arange(6, dtype=torch.float64) * math.tau / 6 + turn
    return radius * torch.stack([angles.cos(), angles.sin()], 1)


def block(x: float) -> Tensor:
    """Return six points `(6, 2)` in three rows of two around (x, 0)."""
    columns, rows = (
        torch.tensor([-0.35, 0.35], dtype=torch.float64),
        torch.tensor([-0.7, 0.0, 0.7], dtype=torch.float64),
    )
    return torch.cartesian_prod(x + columns, rows)


def side_by_side(distance: float = 1.8) -> Layout:
    """Return both groups side by side, with the given distance between their centres."""
    return Layout(real=block(distance / 2), fake=block(-distance / 2))


def amidst(radius: float = 1.8) -> Layout:
    """Return the generated scores inside a circle of real scores."""
    return Layout(real=ring(radius, 0.35), fake=ring(0.6, 0.1))


PANELS = {
    r"(a) attractive $L_D^{\mathrm{att}}$": (side_by_side(), ATTRACTIVE),
    r"(b) repulsive $L_D^{\mathrm{rep}}$": (amidst(), REPULSIVE),
    r"(c) $L_G^{\mathrm{mmd}}$ paired with $L_D^{\mathrm{rep}}$": (amidst(), GENERATOR),
}


def by_library(layout: Layout, lambda_: float | None) -> Tensor:
    """Return minus the gradient `(12, 2)` of the library's discriminator loss, or of its generator loss for None."""
    real, fake = (part.clone().requires_grad_() for part in layout)
    loss = MMDLoss(KERNEL, 1.0 if lambda_ is None else lambda_)
    value = loss.generator(real, fake) if lambda_ is None else loss.discriminator(real, fake)
    return -torch.cat(torch.autograd.grad(value, (real, fake)))


def towards(forces: Tensor, scores: Tensor, others: Tensor) -> Tensor:
    """Return the components of forces `(n, 2)` on scores `(n, 2)` in the direction of the mean of `others`."""
    return torch.linalg.vecdot(forces, torch.nn.functional.normalize(others.mean(0) - scores))


def claims() -> list[Claim]:
    """Check the claims of Section 3 about the figure."""
    return [*attractive(), *repulsive(), *generator(), same_gradients(), opposite_directions()]


def attractive() -> list[Claim]:
    """Check the claims about panel (a)."""
    layout = side_by_side()
    real, fake = layout
    found = forces(layout, ATTRACTIVE)
    inwards = torch.cat([towards(found.attraction[:6], real, real), towards(found.attraction[6:], fake, fake)])
    apart = -torch.cat([towards(found.repulsion[:6], real, fake), towards(found.repulsion[6:], fake, real)])
    return [
        all_positive("(a) attraction", "contracts each group", inwards, "into its own group"),
        all_positive("(a) repulsion", "the groups repel each other", apart, "away from the other group"),
    ]


def repulsive() -> list[Claim]:
    """Check the claims about panel (b)."""
    layout = amidst()
    real, fake = layout
    found = forces(layout, REPULSIVE)
    net = max(found.total[:6].sum(0).norm().item(), found.total[6:].sum(0).norm().item())
    only = found.attraction[:6].abs().max() == 0 and found.repulsion[6:].abs().max() == 0
    return [
        all_positive(
            r"(b) real scores", "repel each other", -towards(found.total[:6], real, real), "out of their group"
        ),
        all_positive("(b) generated scores", "contracted", towards(found.total[6:], fake, fake), "into their group"),
        Claim(
            r"(b) average scores",
            "D does not explicitly push them apart",
            f"the forces on either group add up to {net:.0e}",
            bool(only) and net < 1e-12,
        ),
    ]


def generator() -> list[Claim]:
    """Check the claims about panel (c), and the generator's loss in the layout of (a)."""
    real, fake = amidst()
    outwards = -towards(forces(amidst(), GENERATOR).of_fake().repulsion, fake, fake)
    real, fake = side_by_side()
    net = forces(side_by_side(), GENERATOR).of_fake().total.mean(0, keepdim=True)
    closer = towards(net, fake.mean(0, keepdim=True), real)
    return [
        all_positive("(c) repulsion", "G expands the generated scores", outwards, "outwards"),
        all_positive("L_G, average scores, layout of (a)", "G matches them", closer, "towards the real scores"),
    ]


def all_positive(what: str, paper: str, parts: Tensor, direction: str) -> Claim:
    """Claim that all forces have a positive component in a direction."""
    count = int((parts > 0).sum())
    return Claim(what, paper, f"{count} of {len(parts)} forces point {direction}", count == len(parts))


def same_gradients() -> Claim:
    """Claim that both parts add up to the gradient of the library's loss, and that L_G reverses that of L_D^att."""
    pairs = [(ATTRACTIVE, -1.0), (REPULSIVE, 1.0), (GENERATOR, None)]
    layouts = (side_by_side(), amidst())
    errors = [
        (forces(layout, weights).total - by_library(layout, lambda_)).abs().max().item()
        for layout in layouts
        for weights, lambda_ in pairs
    ]
    reversals = [(by_library(layout, None) + by_library(layout, -1.0)).abs().max().item() for layout in layouts]
    here = f"to {max(reversals):.0e}; the sum of both parts is the gradient of MMDLoss to {max(errors):.0e}"
    return Claim("L_G paired with L_D^att", "reverses the arrows of (a)", here, max(errors + reversals) < 1e-12)


def opposite_directions() -> Claim:
    """Claim that both parts of the gradient of L_G on generated scores oppose each other in (a) but not in (c)."""
    side, middle = (forces(layout, GENERATOR).of_fake() for layout in (side_by_side(), amidst()))
    opposed, still_opposed = (int((found.cosines() < 0).sum()) for found in (side, middle))
    here = (
        f"opposite on {opposed} of 6 generated scores in the layout of (a), {side.kept().min():.0%} of their lengths "
        f"left on one of them, and on {still_opposed} in that of (c), {middle.kept().min():.0%} left"
    )
    holds = opposed >= 3 and still_opposed == 0 and bool(side.kept().min() < 0.25 < middle.kept().min())
    return Claim("L_G, both parts of the gradient", "opposite with L_D^att, less likely so with L_D^rep", here, holds)


def draw(figure: Figure) -> None:
    """Draw the three panels."""
    for axes, (title, (layout, weights)) in zip(figure.subplots(1, 3), PANELS.items(), strict=True):
        _panel(axes, layout, forces(layout, weights), fake_only=weights == GENERATOR)
        axes.set_title(title, fontsize=11)
    _legend(figure)


def _panel(axes: Axes, layout: Layout, found: Forces, *, fake_only: bool) -> None:
    scores, first = torch.cat(layout), len(layout.real) if fake_only else 0
    longest = max(part[first:].norm(dim=1).max().item() for part in found)
    for part, color, side in zip(found, ("tab:blue", "tab:orange"), (1, -1), strict=True):
        lengths = part.norm(dim=1, keepdim=True)
        directions = torch.nn.functional.normalize(part)
        # Lengths are cube roots, since the figure is about directions. Both arrows of a score are drawn side by side.
        arrows = (LONGEST * (lengths / longest).pow(1 / 3) * directions)[first:]
        aside = directions.flip(1) * torch.tensor([-side, side])
        starts = (scores + NODE * directions + 0.45 * NODE * aside)[first:]
        shown = lengths[first:, 0] > 0
        axes.quiver(
            *starts[shown].T.numpy(),
            *arrows[shown].T.numpy(),
            color=color,
            angles="xy",
            scale_units="xy",
            scale=1,
            width=0.012,
        )
    for points, letter, color in ((layout.real, "r", "tab:green"), (layout.fake, "g", "tab:purple")):
        x, y = points.T.numpy()
        axes.scatter(x, y, s=130, color="white", edgecolors=color, linewidths=1.5, zorder=3)
        for at in points.tolist():
            axes.text(at[0], at[1], letter, color=color, ha="center", va="center_baseline", fontsize=9, zorder=4)
    reach = scores.abs().max().item() + LONGEST + 2 * NODE
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[], aspect="equal")


def _legend(figure: Figure) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color="tab:blue", linewidth=3, label="attraction"),
        Line2D([], [], color="tab:orange", linewidth=3, label="repulsion"),
        Line2D([], [], color="tab:green", marker="$r$", linestyle="", label="score of a real sample"),
        Line2D([], [], color="tab:purple", marker="$g$", linestyle="", label="score of a generated sample"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)


if __name__ == "__main__":
    main(sys.modules[__name__])
