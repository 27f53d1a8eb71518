"""A plain loop that Accelerate runs, with `save_state` before the first forward pass."""

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader

from torch_mmd_losses import MMDLoss, conv_spectral_norm

z_dim = 16


class Run:
    def __init__(self, images, example_input=None):
        D = nn.Sequential(nn.Conv2d(1, 16, 4, 2, 1), nn.LeakyReLU(0.1), nn.Flatten(), nn.Linear(16 * 4 * 4, 16))
        G = nn.Sequential(nn.Linear(z_dim, 128), nn.ReLU(), nn.Linear(128, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))
        conv_spectral_norm(D, scale=1 / 0.55, example_input=example_input)
        opt_d = torch.optim.Adam(D.parameters(), lr=2e-3, betas=(0.5, 0.999))
        opt_g = torch.optim.Adam(G.parameters(), lr=2e-3, betas=(0.5, 0.999))
        loader = DataLoader(images, batch_size=64, drop_last=True)
        self.accelerator, self.loss = Accelerator(cpu=True), MMDLoss()
        self.D, self.G, self.opt_d, self.opt_g, self.loader = self.accelerator.prepare(D, G, opt_d, opt_g, loader)

    def epoch(self):
        for real in self.loader:
            fake = self.G(torch.randn(len(real), z_dim))

            loss_d = self.loss.discriminator(real=self.D(real), fake=self.D(fake.detach()))
            self.opt_d.zero_grad()
            self.accelerator.backward(loss_d)
            self.opt_d.step()

            loss_g = self.loss.generator(real=self.D(real).detach(), fake=self.D(fake))
            self.opt_g.zero_grad()
            self.accelerator.backward(loss_g)
            self.opt_g.step()
