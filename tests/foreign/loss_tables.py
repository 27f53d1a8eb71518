"""A trainer that finds its losses by name in a table."""

import torch
from torch import nn
from torch.nn import functional as F

from torch_mmd_losses import (
    LinearKernel,
    MMDLoss,
    RationalQuadraticMix,
    RBFBKernel,
    RBFKernel,
    RBFMix,
    conv_spectral_norm,
)


def hinge_d(real, fake):
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_g(real, fake):
    return -fake.mean()


def mmd(*arguments, **options):
    loss = MMDLoss(*arguments, **options)
    return loss.discriminator, loss.generator


NAIVE = {"mmd": (MMDLoss(), MMDLoss())}

LOSSES = {
    "hinge": (hinge_d, hinge_g),
    "mmd-rep-b": mmd(),
    "mmd-rep": mmd(RBFKernel()),
    "mmd-rbf-b": mmd(RBFBKernel(), lambda_=-1),
    "mmd-rbf": mmd(RBFMix(), lambda_=-1),
    "mmd-rq": mmd(RationalQuadraticMix() + 0.1 * LinearKernel(), lambda_=-1),
}


def train(images, losses, *, steps, outputs=16):
    d_loss, g_loss = losses
    G = nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))
    D = conv_spectral_norm(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.LeakyReLU(0.1), nn.Linear(128, outputs)), scale=1 / 0.55
    )
    opt_d = torch.optim.Adam(D.parameters(), lr=2e-3, betas=(0.5, 0.999))
    opt_g = torch.optim.Adam(G.parameters(), lr=2e-3, betas=(0.5, 0.999))
    for _ in range(steps):
        real = images[torch.randint(len(images), (64,))]
        fake = G(torch.randn(64, 16))
        opt_d.zero_grad()
        d_loss(D(real), D(fake.detach())).backward()
        opt_d.step()
        opt_g.zero_grad()
        g_loss(D(real).detach(), D(fake)).backward()
        opt_g.step()
    return G
