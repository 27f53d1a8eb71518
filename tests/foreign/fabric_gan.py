"""A plain loop that Fabric runs, as in Fabric's DCGAN example."""

import torch
from lightning.fabric import Fabric
from torch import nn

from torch_mmd_losses import MMDLoss, conv_spectral_norm

z_dim = 16


def make_discriminator():
    return nn.Sequential(nn.Conv2d(1, 16, 4, 2, 1), nn.LeakyReLU(0.1), nn.Flatten(), nn.Linear(16 * 4 * 4, 16))


def make_generator():
    return nn.Sequential(nn.Linear(z_dim, 128), nn.ReLU(), nn.Linear(128, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))


def train(images, *, steps, wrap_after_setup=False, precision="32-true"):
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    D, G, loss = make_discriminator(), make_generator(), MMDLoss()
    if not wrap_after_setup:
        conv_spectral_norm(D, scale=1 / 0.55)
    opt_d = torch.optim.Adam(D.parameters(), lr=2e-3, betas=(0.5, 0.999))
    opt_g = torch.optim.Adam(G.parameters(), lr=2e-3, betas=(0.5, 0.999))
    D, opt_d = fabric.setup(D, opt_d)
    G, opt_g = fabric.setup(G, opt_g)
    if wrap_after_setup:
        conv_spectral_norm(D, scale=1 / 0.55)
    for _ in range(steps):
        real = images[torch.randint(len(images), (64,))]
        fake = G(torch.randn(64, z_dim))

        loss_d = loss.discriminator(real=D(real), fake=D(fake.detach()))
        opt_d.zero_grad()
        fabric.backward(loss_d)
        opt_d.step()

        loss_g = loss.generator(real=D(real).detach(), fake=D(fake))
        opt_g.zero_grad()
        fabric.backward(loss_g)
        opt_g.step()
    return D, G
