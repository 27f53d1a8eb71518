"""How far below the exact norm are the estimates of `conv_spectral_norm`, with fixed weights and in training?

A GAN with the discriminator of Wang et al., Table S1, learns 32 x 32 crops of the two photographs of scikit-learn, by
the repulsive loss and Adam at 2e-4, with scale=1, so that the loss stays clear of saturation; steps in which more than
60 % of the pairs are saturated do not count. After each step of the discriminator, two followers, one with
method="conv" and one with method="pico", get its weights and do one forward pass in training mode: one iteration for
each change of the weights. Their estimates are divided by the exact norm, which comes from 40 Lanczos steps in float64
from the exact vector of the previous step and a chirp. At the end the weights stay fixed, and the followers continue.

There are two seeds. The table has the median, the 5 % quantile and the minimum of estimate / exact over the layers and
the steps that count, and the distance of the median from 1 for `conv` relative to `pico`.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median_low, quantiles
from typing import TYPE_CHECKING

import torch
from common import Options, Record, Target, main, markdown, progress
from torch import Tensor, nn
from torch.nn import functional as F

from torch_mmd_losses import MMDLoss, UsageWarning, conv_spectral_norm, spectral_norms
from torch_mmd_losses.spectral import singular_vectors
from torch_mmd_losses.spectral.fingerprint import NO_FINGERPRINT
from torch_mmd_losses.spectral.parametrization import SpectralNorm
from torch_mmd_losses.types import Method

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTHS = (64, 128, 256, 512)
QUICK_WIDTHS = (2, 4)
METHODS: tuple[Method, ...] = ("pico", "conv")
SEEDS = (0, 1)
"""Of the promised errors; with another `--seed`, it and the next are taken."""
STEPS = 30
QUICK_STEPS = 2
WINDOW = 10
"""Steps in a line of the table."""
HELD = 10
"""Iterations after the weights are held."""
BATCH = 16
MOST_SATURATED = 0.6
EXACT_STEPS = 40
MOST_BESIDE_PICO = 0.5
LEAST_HELD = 0.99


def discriminator(widths: Sequence[int]) -> nn.Sequential:
    """Return the discriminator of Table S1."""
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, padding=1), nn.LeakyReLU(0.1)]
    for narrow, wide in pairwise(widths):
        layers += [nn.Conv2d(narrow, wide, 4, stride=2, padding=1), nn.LeakyReLU(0.1)]
        layers += [nn.Conv2d(wide, wide, 3, padding=1), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * _smallest(widths) ** 2, 16))


def generator(widths: Sequence[int]) -> nn.Sequential:
    """Return the generator of Table S1."""
    size = _smallest(widths)
    layers: list[nn.Module] = [nn.Linear(128, widths[-1] * size**2), nn.Unflatten(1, (widths[-1], size, size))]
    for wide, narrow in pairwise(widths[::-1]):
        layers += [nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1), nn.BatchNorm2d(narrow), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(widths[0], 3, 3, padding=1), nn.Tanh())


def _smallest(widths: Sequence[int]) -> int:
    """Return the size of the smallest images within the networks."""
    return int(32 // 2 ** (len(widths) - 1))


def photographs() -> list[Tensor]:
    """Return two photographs at a third of their size, `(3, height, width)` in [-1, 1]."""
    from sklearn.datasets import load_sample_images

    pixels = [torch.from_numpy(image.copy()).permute(2, 0, 1) for image in load_sample_images().images]
    return [F.avg_pool2d(image.float() / 127.5 - 1, 3) for image in pixels]


def crops(images: list[Tensor], n: int) -> Tensor:
    """Return `n` random crops, `(n, 3, 32, 32)`."""
    chosen = []
    for _ in range(n):
        image = images[int(torch.randint(len(images), ()))]
        top, left = (int(torch.randint(size - 31, ())) for size in image.shape[1:])
        chosen.append(image[:, top : top + 32, left : left + 32])
    return torch.stack(chosen)


def weights(model: nn.Module) -> list[Tensor]:
    """Return the trained weights of the layers."""
    return [value for name, value in model.named_parameters() if name.endswith(".original")]


def normalisations(model: nn.Module) -> list[SpectralNorm]:
    """Return the normalisations of the layers."""
    return [part for part in model.modules() if isinstance(part, SpectralNorm)]


class Followers:
    """Estimates by each method, and exact norms, of the layers of a discriminator."""

    def __init__(self, model: nn.Module, widths: Sequence[int]) -> None:
        self.model = model
        self.models: dict[Method, nn.Module] = {}
        for method in METHODS:
            follower = discriminator(widths)
            follower.load_state_dict(
                {
                    k.replace("parametrizations.weight.original", "weight"): v
                    for k, v in model.state_dict().items()
                    if "weight.0" not in k
                }
            )
            self.models[method] = conv_spectral_norm(follower, method=method)
            self._forward(follower)
        norms = normalisations(model)
        self.operators = [norm.operator for norm in norms]
        self.exact = [norm.v.double() for norm in norms]

    def ratios(self) -> list[Record]:
        """Return estimate / exact of each layer, after one iteration at the weights of the discriminator."""
        with torch.no_grad():
            exact = torch.stack([self._exact(i, weight.double()) for i, weight in enumerate(weights(self.model))])
            found = {}
            for method, follower in self.models.items():
                for mine, weight in zip(weights(follower), weights(self.model), strict=True):
                    mine.copy_(weight)
                for norm in normalisations(follower):
                    norm.fingerprint.fill_(NO_FINGERPRINT)  # iterate at weights that are held, too
                self._forward(follower)
                found[method] = (torch.stack([*spectral_norms(follower).values()]) / exact).tolist()
        return [{"layer": i, **{method: found[method][i] for method in METHODS}} for i in range(len(exact))]

    def _exact(self, i: int, weight: Tensor) -> Tensor:
        chirp = singular_vectors.start_vector(self.exact[i].shape, like=weight)
        start = singular_vectors.unit_vector(self.exact[i] + 0.1 * chirp, fallback=chirp)
        self.exact[i] = singular_vectors.lanczos(self.operators[i], weight, start, EXACT_STEPS)
        return singular_vectors.norm_along(self.operators[i], weight, self.exact[i])

    @staticmethod
    def _forward(model: nn.Module) -> None:
        with torch.no_grad():
            model(torch.zeros(1, 3, 32, 32))


def run(seed: int, widths: Sequence[int], steps: int, held: int) -> Iterator[Record]:
    """Train, then hold the weights, and yield a record for each step and layer."""
    torch.manual_seed(seed)
    images = photographs()
    model, draws = conv_spectral_norm(discriminator(widths)), generator(widths)
    model(torch.zeros(1, 3, 32, 32))
    loss = MMDLoss()
    adam_d = torch.optim.Adam(model.parameters(), lr=2e-4, betas=(0.5, 0.999))
    adam_g = torch.optim.Adam(draws.parameters(), lr=2e-4, betas=(0.5, 0.999))
    followers = Followers(model, widths)
    for step in range(1, steps + 1):
        real, fake = crops(images, BATCH), draws(torch.randn(BATCH, 128))
        scores = model(torch.cat([real, fake.detach()])).chunk(2)
        saturated = float(loss.terms(real=scores[0].detach(), fake=scores[1].detach()).saturated)
        progress(f"seed {seed}, step {step}: {saturated:.0%} saturated")
        adam_d.zero_grad()
        loss.discriminator(real=scores[0], fake=scores[1]).backward()
        adam_d.step()
        place = {"seed": seed, "step": step, "held": 0, "counts": saturated <= MOST_SATURATED}
        yield from ({**place, **found} for found in followers.ratios())
        adam_g.zero_grad()
        loss.generator(real=model(real).detach(), fake=model(fake)).backward()
        adam_g.step()
    for after in range(1, held + 1):
        place = {"seed": seed, "step": steps + after, "held": after, "counts": False}
        yield from ({**place, **found} for found in followers.ratios())


def measure(options: Options) -> list[Record]:
    """Return a record for each seed, step and layer: estimate / exact by method, and whether the step counts.

    `held` is the number of iterations at the last weights, 0 in training, and steps go on meanwhile.
    """
    size = (QUICK_WIDTHS, QUICK_STEPS, 1) if options.quick else (WIDTHS, STEPS, HELD)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UsageWarning)  # of saturation, which each record says itself
        return [record for seed in SEEDS for record in run(options.seed + seed, *size)]


def error(records: list[Record], method: Method) -> float:
    """Return how far below 1 the median of estimate / exact is."""
    return 1 - median_low(r[method] for r in records)


def beside_pico(records: list[Record]) -> float | None:
    """Return the error of `conv` as a multiple of that of `pico`; None if there is nothing to compare."""
    if not records or error(records, "pico") <= 0:
        return None
    return error(records, "conv") / error(records, "pico")


def _row(seed: int, when: str, chosen: list[Record], count: str) -> list[str]:
    cells = []
    for method in METHODS:
        values = [r[method] for r in chosen]
        if values:
            low = quantiles(values, n=20, method="inclusive")[0]
            cells.append(", ".join(f"{value:.4f}" for value in (median_low(values), low, min(values))))
        else:
            cells.append("")
    share = beside_pico(chosen)
    shown = "" if share is None else f"{max(share, 0.0):.2f}"  # below zero by rounding only
    total = sum(1 - r["pico"] for r in chosen)
    mean = f"{max(sum(1 - r['conv'] for r in chosen) / total, 0.0):.2f}" if total > 0 else ""
    return [str(seed), when, count, *cells, shown, mean]


def table(records: list[Record]) -> str:
    """Return lines for each seed: windows of training, all of it, and after some forwards at the same weights."""
    rows = []
    for seed in dict.fromkeys(r["seed"] for r in records):
        mine = [r for r in records if r["seed"] == seed]
        last = max(r["step"] for r in mine if not r["held"])
        windows = [(first, min(first + WINDOW - 1, last)) for first in range(1, last + 1, WINDOW)]
        for first, until in [*windows, (1, last)]:
            chosen = [r for r in mine if r["counts"] and first <= r["step"] <= until]
            count = f"{len({r['step'] for r in chosen})} of {until - first + 1}"
            rows.append(_row(seed, f"{first} to {until}", chosen, count))
        for after in (1, 5, 10):
            chosen = [r for r in mine if r["held"] == after]
            if chosen:
                rows.append(_row(seed, f"held for {after}", chosen, ""))
    methods = [f"`{method}`: median, 5 %, least" for method in METHODS]
    ratios = ["error of the medians, `conv` / `pico`", "mean error, `conv` / `pico`"]
    return markdown(["seed", "steps", "that count", *methods, *ratios], rows)


def targets(records: list[Record]) -> list[Target]:
    """Return the promised errors."""
    result = []
    held = []
    for seed in SEEDS:
        mine = [r for r in records if r["seed"] == seed]
        complete = any(r["step"] == STEPS + HELD for r in mine)
        share = beside_pico([r for r in mine if r["counts"]]) if complete else None
        result.append(
            Target(f"median error of `conv` / `pico`, seed {seed}, all counted steps", MOST_BESIDE_PICO, share)
        )
        held += [min(r["conv"] for r in mine if r["held"] == HELD)] if complete else []
    lowest = min(held) if len(held) == len(SEEDS) else None
    what = f"lowest estimate / exact on any layer after {HELD} iterations at fixed weights, `conv`"
    return [*result, Target(what, LEAST_HELD, lowest, least=True)]


def draw(records: list[Record], figure: Figure) -> None:
    """Draw the median errors over the steps, with dots at those that count."""
    axes = figure.subplots()
    for seed, style in zip(dict.fromkeys(r["seed"] for r in records), ("-", "--"), strict=True):
        mine = [r for r in records if r["seed"] == seed]
        steps = list(dict.fromkeys(r["step"] for r in mine))
        counted = [any(r["counts"] for r in mine if r["step"] == step) for step in steps]
        for method, colour in zip(METHODS, ("C0", "C1"), strict=True):
            # Errors that are only rounding do not fit on the scale.
            errors = [max(error([r for r in mine if r["step"] == step], method), 1e-7) for step in steps]
            label = f"{method}, seed {seed}"
            axes.plot(steps, errors, style, color=colour, marker="o", markersize=4, markevery=counted, label=label)
    axes.axvline(max(r["step"] for r in records if not r["held"]) + 0.5, color="grey", linestyle=":")
    axes.set(yscale="log", xlabel="steps (right of the line: forwards at the same weights)")
    axes.set_ylabel("median of 1 - estimate / exact")
    axes.set_title("Error of the spectral norms")
    figure.legend(loc="outside right upper", fontsize="small")


if __name__ == "__main__":
    main(sys.modules[__name__])
