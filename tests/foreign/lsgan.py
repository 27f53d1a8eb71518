"""A program in the shape of PyTorch-GAN's LSGAN, with its own loss or with MMD, and with several learning rates.

The generator is updated first. In an environment with the extra `paper`,

    PYTHONPATH=examples python tests/foreign/lsgan.py --classifier runs/classifiers/fashion-mnist.pt

trains on Fashion-MNIST and prints the Frechet distance of 5,000 generated images to 5,000 test images, in the features
of a classifier that `examples/classifier.py` makes.
"""

import argparse
from pathlib import Path

import torch
from torch import nn

from torch_mmd_losses import MMDLoss, conv_spectral_norm

LATENT = 100
SHOWN = (200, 500, 1000)
RATES = ((2e-4, 2e-4), (2e-4, 1e-3), (5e-4, 1e-3))
"""Of the discriminator and the generator; the program's own are the first."""
ARMS = {
    "LSGAN": ({}, RATES[:2]),
    "MMD": ({"mmd": True}, RATES),
    "MMD, dropout kept": ({"mmd": True, "dropout": True}, RATES[1:2]),
}


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.project = nn.Linear(LATENT, 32 * 8 * 8)
        self.blocks = nn.Sequential(
            nn.Upsample(scale_factor=2),
            nn.Conv2d(32, 32, 3, 1, 1),
            nn.BatchNorm2d(32, 0.8),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(32, 32, 3, 1, 1),
            nn.BatchNorm2d(32, 0.8),
            nn.LeakyReLU(0.2),
            nn.Conv2d(32, 1, 3, 1, 1),
            nn.Tanh(),
        )

    def forward(self, noise):
        return self.blocks(self.project(noise).view(-1, 32, 8, 8))


class Discriminator(nn.Module):
    def __init__(self, outputs, *, batch_norm, dropout):
        super().__init__()
        layers = []
        for wide, narrow in ((1, 16), (16, 32), (32, 64), (64, 128)):
            layers += [nn.Conv2d(wide, narrow, 3, 2, 1), nn.LeakyReLU(0.2)]
            layers += [nn.Dropout2d(0.25)] if dropout else []
            layers += [nn.BatchNorm2d(narrow, 0.8)] if batch_norm and wide > 1 else []
        self.model = nn.Sequential(*layers)
        self.adv_layer = nn.Linear(128 * 2 * 2, outputs)

    def forward(self, images):
        return self.adv_layer(self.model(images).flatten(1))


def weights_init_normal(module):
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight.data, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight.data, 1.0, 0.02)


def least_squares(scores, target):
    return (scores - target).square().mean()


def train(images, *, rates, seed, steps, mmd=False, dropout=None, show=lambda step, generator: None):
    """Train with images `(n, 1, 32, 32)` in [-1, 1], and return the generator."""
    torch.manual_seed(seed)
    generator = Generator()
    discriminator = Discriminator(16 if mmd else 1, batch_norm=not mmd, dropout=not mmd if dropout is None else dropout)
    generator.apply(weights_init_normal)
    discriminator.apply(weights_init_normal)
    loss = MMDLoss()
    if mmd:
        conv_spectral_norm(discriminator, scale=1 / 0.55)
    optimizer_d = torch.optim.Adam(discriminator.parameters(), rates[0], betas=(0.5, 0.999))
    optimizer_g = torch.optim.Adam(generator.parameters(), rates[1], betas=(0.5, 0.999))
    for step in range(1, steps + 1):
        real = images[torch.randint(len(images), (64,))]
        fake = generator(torch.randn(64, LATENT))

        optimizer_g.zero_grad()
        if mmd:
            g_loss = loss.generator(real=discriminator(real).detach(), fake=discriminator(fake))
        else:
            g_loss = least_squares(discriminator(fake), 1)
        g_loss.backward()
        optimizer_g.step()

        optimizer_d.zero_grad()
        if mmd:
            d_loss = loss.discriminator(real=discriminator(real), fake=discriminator(fake.detach()))
        else:
            of_fake = least_squares(discriminator(fake.detach()), 0)
            d_loss = 0.5 * (least_squares(discriminator(real), 1) + of_fake)
        d_loss.backward()
        optimizer_d.step()
        show(step, generator)
    return generator


def main():
    from classifier import restore
    from evaluation.metrics import frechet_distance
    from training.batches import centred
    from training.images import load

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classifier", type=Path, required=True)
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    torch.set_num_threads(1)

    def read(split, count):
        found = load("fashion-mnist", options.data_root, size=32, channels=1, split=split)
        return centred(torch.stack([found[i] for i in range(count)]))

    images, held_out = read("train", 60_000), read("test", 5_000)
    network = restore(options.classifier)[0].eval()

    @torch.no_grad()
    def features(samples):
        return torch.cat([network(part)[0] for part in samples.split(500)]).double()

    of_real = features(held_out)

    def distance(generator):
        with torch.no_grad():
            # In training mode, as the program draws its own samples.
            samples = torch.cat([generator(torch.randn(500, LATENT)) for _ in range(10)])
        return frechet_distance(features(samples), of_real)["fid"]

    for name, (choices, all_rates) in ARMS.items():
        for rates in all_rates:
            for seed in options.seeds:
                found = []

                def show(step, generator, found=found):
                    if step in SHOWN:
                        found.append(f"{distance(generator):.1f}")

                train(images, rates=rates, seed=seed, steps=SHOWN[-1], show=show, **choices)
                print(f"{name}, rates {rates}, seed {seed}: {', '.join(found)} after {SHOWN} steps", flush=True)


if __name__ == "__main__":
    main()
