"""A program in the shape of HiFi-GAN: lists of scores from discriminators at several periods and scales, and features.

    python tests/foreign/vocoder.py

prints mean kernel values of real scores for several ways to pool the scores of all places. Then it trains a small
vocoder on synthetic sounds with the program's own loss and with MMD, and prints how far the log spectrograms of its
sounds are from those of held-out sounds: at the resolution that the generator gets, and at one that no term of the loss
contains.
"""

import argparse
import math

import torch
from torch import nn
from torch.nn import functional as F

from torch_mmd_losses import MMDLoss, RBFKernel, conv_spectral_norm

LENGTH, WINDOW = 1024, 64
HOP = WINDOW // 4


def sounds(count, seed):
    """Return harmonic tones with noise, `(count, 1, LENGTH)`."""
    g = torch.Generator().manual_seed(seed)
    pitch = torch.empty(count, 1, 1).uniform_(0.02, 0.12, generator=g)
    harmonics = torch.arange(1, 7).view(1, -1, 1)
    phases = torch.rand(count, 6, 1, generator=g) + pitch * harmonics * torch.arange(LENGTH) / 2
    loudness = torch.rand(count, 6, 1, generator=g) / harmonics
    tones = (loudness * torch.sin(2 * math.pi * phases)).sum(1, keepdim=True)
    tones = tones + 0.05 * torch.randn(tones.shape, generator=g)
    return 0.9 * tones / tones.abs().amax(2, keepdim=True)


def log_spectrogram(sound, window=WINDOW):
    """Return logarithms of magnitudes, `(n, window // 2 + 1, frames)`."""
    parts = F.pad(sound, (window // 2 - window // 8,) * 2, mode="reflect").squeeze(1)
    spectrum = torch.stft(
        parts, window, window // 4, window=torch.hann_window(window), center=False, return_complex=True
    )
    return spectrum.abs().clamp(min=1e-3).log()


class Generator(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.before = nn.Conv1d(WINDOW // 2 + 1, width, 7, padding=3)
        self.up = nn.ModuleList(
            nn.ConvTranspose1d(width // 2**i, width // 2 ** (i + 1), 8, stride=4, padding=2) for i in range(2)
        )
        self.residual = nn.ModuleList(nn.Conv1d(width // 2, width // 2, 3, padding=d, dilation=d) for d in (1, 3))
        self.after = nn.Conv1d(width // 4, 1, 7, padding=3)

    def forward(self, spectrogram):
        h = self.up[0](F.leaky_relu(self.before(spectrogram), 0.1))
        for layer in self.residual:
            h = h + layer(F.leaky_relu(h, 0.1))
        return self.after(F.leaky_relu(self.up[1](F.leaky_relu(h, 0.1)), 0.1)).tanh()


class PeriodDiscriminator(nn.Module):
    """Scores of a sound whose samples at a distance of one period are neighbours."""

    def __init__(self, period, norm, outputs, pool):
        super().__init__()
        self.period, self.pool = period, pool
        self.convs = nn.ModuleList(
            norm(nn.Conv2d(wide, narrow, (5, 1), (3, 1), padding=(2, 0)))
            for wide, narrow in ((1, 8), (8, 16), (16, 32))
        )
        self.last = norm(nn.Conv2d(32, outputs, (3, 1), padding=(1, 0)))

    def forward(self, sound):
        x = F.pad(sound, (0, -sound.shape[2] % self.period), mode="reflect").unflatten(2, (-1, self.period))
        return scores_and_features(self, x)


class ScaleDiscriminator(nn.Module):
    """Scores of a sound at `1 / factor` of its sampling rate."""

    def __init__(self, factor, norm, outputs, pool):
        super().__init__()
        self.factor, self.pool = factor, pool
        self.convs = nn.ModuleList(
            norm(nn.Conv1d(wide, narrow, 15, stride, padding=7, groups=groups))
            for wide, narrow, stride, groups in ((1, 8, 1, 1), (8, 16, 4, 4), (16, 32, 4, 4))
        )
        self.last = norm(nn.Conv1d(32, outputs, 3, padding=1))

    def forward(self, sound):
        return scores_and_features(self, F.avg_pool1d(sound, self.factor))


def scores_and_features(discriminator, x):
    features = []
    for conv in discriminator.convs:
        x = F.leaky_relu(conv(x), 0.1)
        features.append(x)
    scores = discriminator.last(x).flatten(2)
    return (discriminator.pool(scores) if discriminator.pool else scores.flatten(1)), features


def pooled(scores):
    """Return the mean over all places, in the size that keeps the bound of the norms of the layers."""
    return scores.mean(2) * scores.shape[2] ** 0.5


POOLS = {
    "mean": lambda scores: scores.mean(2),
    "sum": lambda scores: scores.sum(2),
    "norm one": pooled,
    "none": None,
}


class Discriminators(nn.Module):
    """Returns two lists: the scores of each discriminator and its features."""

    def __init__(self, norm, outputs, pool=None):
        super().__init__()
        self.parts = nn.ModuleList(
            [
                *(PeriodDiscriminator(period, norm, outputs, pool) for period in (2, 3, 5)),
                *(ScaleDiscriminator(factor, norm, outputs, pool) for factor in (1, 2)),
            ]
        )

    def forward(self, sound):
        scores, features = zip(*(part(sound) for part in self.parts), strict=True)
        return list(scores), list(features)


def least_squares():
    """Return the program's own losses of the discriminators and of the generator."""
    return (
        lambda real, fake: sum((1 - r).square().mean() + f.square().mean() for r, f in zip(real, fake, strict=True)),
        lambda real, fake: sum((1 - f).square().mean() for f in fake),
    )


def mmd(loss=None):
    """Return the same losses by MMD, one for each pair of entries of the lists."""
    loss = MMDLoss() if loss is None else loss
    return (
        lambda real, fake: sum(loss.discriminator(real=r, fake=f) for r, f in zip(real, fake, strict=True)),
        lambda real, fake: sum(loss.generator(real=r.detach(), fake=f) for r, f in zip(real, fake, strict=True)),
    )


def feature_loss(real, fake):
    pairs = (
        (r.detach(), f)
        for of_real, of_fake in zip(real, fake, strict=True)
        for r, f in zip(of_real, of_fake, strict=True)
    )
    return 2 * sum(F.l1_loss(f, r) for r, f in pairs)


def build(by_mmd, pool=pooled):
    """Return the generator, the discriminators and both losses."""
    if not by_mmd:
        return Generator(), Discriminators(nn.utils.parametrizations.weight_norm, 1), *least_squares()
    discriminators = Discriminators(nn.Identity(), 16, pool)  # without weight norm
    return Generator(), conv_spectral_norm(discriminators, scale=1 / 0.55), *mmd()


def train(data, *, by_mmd, seed, steps, rates=(2e-4, 2e-4), pool=pooled, show=lambda step, generator: None):
    """Train on sounds `(n, 1, LENGTH)`, and return the generator and the discriminators."""
    torch.manual_seed(seed)
    generator, discriminators, discriminator_loss, generator_loss = build(by_mmd, pool)
    optimizer_d = torch.optim.AdamW(discriminators.parameters(), rates[0], betas=(0.8, 0.99))
    optimizer_g = torch.optim.AdamW(generator.parameters(), rates[1], betas=(0.8, 0.99))
    for step in range(1, steps + 1):
        real = data[torch.randint(len(data), (16,))]
        spectrogram = log_spectrogram(real)
        fake = generator(spectrogram)

        optimizer_d.zero_grad()
        discriminator_loss(discriminators(real)[0], discriminators(fake.detach())[0]).backward()
        optimizer_d.step()

        optimizer_g.zero_grad()
        real_scores, real_features = discriminators(real)
        fake_scores, fake_features = discriminators(fake)
        loss_g = generator_loss(real_scores, fake_scores) + feature_loss(real_features, fake_features)
        (loss_g + 45 * F.l1_loss(log_spectrogram(fake), spectrogram)).backward()
        optimizer_g.step()
        show(step, generator)
    return generator, discriminators


@torch.no_grad()
def errors(generator, held_out):
    """Return the mean distances of log spectrograms at the resolution of the input and at a finer one in time."""
    made = generator(log_spectrogram(held_out))
    return [float(F.l1_loss(log_spectrogram(made, w), log_spectrogram(held_out, w))) for w in (WINDOW, WINDOW // 2)]


@torch.no_grad()
def kernel_means(_, discriminators, held_out):
    """Return the mean kernel value between real scores of each discriminator."""
    scores, kernel = discriminators(held_out)[0], RBFKernel()
    return [float(kernel(r, r).mean()) for r in scores]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[50, 100, 200])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, held_out = sounds(2000, 0), sounds(200, 1)
    for name, pool in POOLS.items():
        found = []
        for steps in (0, 40):
            means = kernel_means(
                *train(data, by_mmd=True, seed=0, steps=steps, rates=(2e-4, 1e-3), pool=pool), held_out
            )
            found.append(f"{min(means):.2f} to {max(means):.2f}")
        print(f"pooling {name}: mean kernel values {found[0]} before and {found[1]} after 40 steps", flush=True)
    for by_mmd, rates in ((False, (2e-4, 2e-4)), (False, (2e-4, 1e-3)), (True, (2e-4, 1e-3))):
        for seed in options.seeds:
            found = []

            def show(step, generator, found=found):
                if step in options.steps:
                    found.append(" and ".join(f"{error:.3f}" for error in errors(generator, held_out)))

            train(data, by_mmd=by_mmd, seed=seed, steps=max(options.steps), rates=rates, show=show)
            name = "MMD" if by_mmd else "least squares"
            print(f"{name}, rates {rates}, seed {seed}: {'; '.join(found)} after {options.steps} steps", flush=True)


if __name__ == "__main__":
    main()
