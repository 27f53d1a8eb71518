"""How far below the exact norm are the estimates of `conv_spectral_norm`, with fixed weights and in training?

    python examples/benchmarks/spectral_norm_error.py            # some minutes; needs the extra "examples"

A GAN with the discriminator of Wang et al., Table S1, learns 32 x 32 crops of the two photographs of scikit-learn, by
the repulsive loss and Adam at 2e-4, with scale=1, so that the loss stays clear of saturation; that is printed, and
steps in which more than 60 % of the pairs are saturated are left out. After each step of the discriminator two
followers, one with method="conv" and one with method="pico", get its weights and do one training forward: one iteration
for each change of the weights. Their estimates are divided by the exact norm, which is that of 40 Lanczos steps in
float64 from the exact vector of the step before and a chirp. At the end the weights are held, and the followers go on.
"""

from __future__ import annotations

import argparse
from itertools import pairwise

import torch
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torch.nn import functional as F

from torch_mmd_losses import MMDLoss, conv_spectral_norm, spectral_norms
from torch_mmd_losses import _operators as operators
from torch_mmd_losses.spectral_norm import Method

WIDTHS = (64, 128, 256, 512)
METHODS: tuple[Method, ...] = ("pico", "conv")
EXACT_STEPS = 40


def discriminator() -> nn.Sequential:
    """Return the discriminator of Table S1."""
    layers: list[nn.Module] = [nn.Conv2d(3, WIDTHS[0], 3, padding=1), nn.LeakyReLU(0.1)]
    for narrow, wide in pairwise(WIDTHS):
        layers += [nn.Conv2d(narrow, wide, 4, stride=2, padding=1), nn.LeakyReLU(0.1)]
        layers += [nn.Conv2d(wide, wide, 3, padding=1), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(WIDTHS[-1] * 4 * 4, 16))


def generator() -> nn.Sequential:
    """Return the generator of Table S1."""
    layers: list[nn.Module] = [nn.Linear(128, WIDTHS[-1] * 4 * 4), nn.Unflatten(1, (WIDTHS[-1], 4, 4))]
    for wide, narrow in pairwise(WIDTHS[::-1]):
        layers += [nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1), nn.BatchNorm2d(narrow), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(WIDTHS[0], 3, 3, padding=1), nn.Tanh())


def photographs() -> list[Tensor]:
    """Return two photographs at a third of their size, `(3, height, width)` in [-1, 1]."""
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


class Followers:
    """Estimates by each method, and exact norms, of the layers of a discriminator."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.models: dict[Method, nn.Module] = {}
        for method in METHODS:
            follower = discriminator()
            follower.load_state_dict(
                {
                    k.replace("parametrizations.weight.original", "weight"): v
                    for k, v in model.state_dict().items()
                    if "weight.0" not in k
                }
            )
            self.models[method] = conv_spectral_norm(follower, method=method)
            self._forward(follower)
        norms = [layer.parametrizations.weight[0] for layer in model if hasattr(layer, "parametrizations")]  # type: ignore[attr-defined]
        self.operators = [norm.operator for norm in norms]
        self.exact = [norm.v.double() for norm in norms]

    def estimates(self) -> Tensor:
        """Return estimate / exact, `(methods, layers)`, after one iteration at the weights of the discriminator."""
        with torch.no_grad():
            exact = torch.stack([self._exact(i, weight.double()) for i, weight in enumerate(weights(self.model))])
            for follower in self.models.values():
                for mine, weight in zip(weights(follower), weights(self.model), strict=True):
                    if not torch.equal(mine, weight):
                        mine.copy_(weight)
                self._forward(follower)
            found = [torch.stack([*spectral_norms(follower).values()]) for follower in self.models.values()]
        return torch.stack(found) / exact

    def _exact(self, i: int, weight: Tensor) -> Tensor:
        chirp = operators.start_vector(self.exact[i].shape, like=weight)
        start = operators.unit(self.exact[i] + 0.1 * chirp, fallback=chirp)
        self.exact[i] = operators.lanczos(self.operators[i], weight, start, EXACT_STEPS)
        return operators.norm_along(self.operators[i], weight, self.exact[i])

    @staticmethod
    def _forward(model: nn.Module) -> None:
        with torch.no_grad():
            model(torch.zeros(1, 3, 32, 32))


def report(label: str, ratios: list[Tensor]) -> None:
    """Print how low the estimates of each method are over some steps, and how the errors compare."""
    if not ratios:
        print(f"{label:22} (saturated)")
        return
    values = torch.stack(ratios, 1).flatten(1).double()
    error = 1 - values.median(1).values
    for method, row in zip(METHODS, values, strict=True):
        print(f"{label:22} {method:5} {row.median():9.4f} {row.quantile(0.05):9.4f} {row.min():9.4f}", end="")
        print(f"{error[1] / error[0]:14.2f}" if method == "conv" else "", flush=True)


def run(seed: int, steps: int, window: int, batch: int) -> None:
    """Train, follow and print."""
    torch.manual_seed(seed)
    images = photographs()
    model, draws = conv_spectral_norm(discriminator()), generator()
    model(torch.zeros(1, 3, 32, 32))
    loss = MMDLoss()
    adam_d = torch.optim.Adam(model.parameters(), lr=2e-4, betas=(0.5, 0.999))
    adam_g = torch.optim.Adam(draws.parameters(), lr=2e-4, betas=(0.5, 0.999))
    followers, ratios, collected = Followers(model), [], []
    for step in range(1, steps + 1):
        real, fake = crops(images, batch), draws(torch.randn(batch, 128))
        scores = model(torch.cat([real, fake.detach()])).chunk(2)
        terms = loss.terms(real=scores[0].detach(), fake=scores[1].detach())
        adam_d.zero_grad()
        loss.discriminator(real=scores[0], fake=scores[1]).backward()
        adam_d.step()
        if terms.saturated <= 0.6:
            ratios.append(followers.estimates())
        else:
            followers.estimates()
        adam_g.zero_grad()
        loss.generator(real=model(real).detach(), fake=model(fake)).backward()
        adam_g.step()
        if step % window == 0:
            log = "  ".join(f"{name} {float(value):.2f}" for name, value in terms._asdict().items())
            print(f"seed {seed}, step {step}: {log}; {len(ratios)} of {window} steps count")
            report(f"seed {seed}, to step {step}", ratios)
            collected += ratios
            ratios = []
    report(f"seed {seed}, all steps", collected)
    held = [followers.estimates() for _ in range(10)]
    for after in (1, 5, 10):
        report(f"seed {seed}, held for {after}", [held[after - 1]])


def main() -> None:
    """Print a table for each seed."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--seeds", type=int, nargs="*", default=[0, 1], help="(%(default)s)")
    reader.add_argument("--steps", type=int, default=45, help="steps to train (%(default)s)")
    reader.add_argument("--window", type=int, default=15, help="steps in a line (%(default)s)")
    reader.add_argument("--batch", type=int, default=16, help="real samples in a step (%(default)s)")
    options = reader.parse_args()
    torch.set_num_threads(1)
    print("estimate / exact       method   median        5%       min   error conv/pico")
    for seed in options.seeds:
        run(seed, options.steps, options.window, options.batch)


if __name__ == "__main__":
    main()
