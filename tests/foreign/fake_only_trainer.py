"""Two trainers whose generator loss gets fake scores only, and that call the losses they are given by position.

`StudioWorker` calls `d_loss(real, fake, DDP=...)` and `g_loss(fake, DDP=...)` as StudioGAN does, `BigWorker` calls
`loss_dis(fake, real)` and `loss_gen(fake)` as the PyTorch code of BigGAN does.
"""

import torch
from torch import nn

from torch_mmd_losses import conv_spectral_norm

z_dim = 16


class Worker:
    def __init__(self, images, outputs=16):
        self.images = images
        self.Gen = nn.Sequential(
            nn.Linear(z_dim, 128), nn.ReLU(), nn.Linear(128, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8))
        )
        self.Dis = conv_spectral_norm(
            nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.LeakyReLU(0.1), nn.Linear(128, outputs)), scale=1 / 0.55
        )
        self.opt_g = torch.optim.Adam(self.Gen.parameters(), lr=2e-3, betas=(0.5, 0.999))
        self.opt_d = torch.optim.Adam(self.Dis.parameters(), lr=2e-3, betas=(0.5, 0.999))

    def sample(self, count=64):
        return self.Gen(torch.randn(count, z_dim))

    def train(self, steps):
        for _ in range(steps):
            real = self.images[torch.randint(len(self.images), (64,))]
            self.update(self.opt_d, self.discriminator_loss(real))
            self.update(self.opt_g, self.generator_loss())
        return self

    def update(self, optimizer, loss):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


class StudioWorker(Worker):
    def __init__(self, images, d_loss, g_loss, **options):
        super().__init__(images, **options)
        self.d_loss, self.g_loss = d_loss, g_loss

    def discriminator_loss(self, real):
        return self.d_loss(self.Dis(real), self.Dis(self.sample().detach()), DDP=False)

    def generator_loss(self):
        return self.g_loss(self.Dis(self.sample()), DDP=False)


class BigWorker(Worker):
    def __init__(self, images, loss_dis, loss_gen, **options):
        super().__init__(images, **options)
        self.loss_dis, self.loss_gen = loss_dis, loss_gen

    def discriminator_loss(self, real):
        fake = self.sample().detach()
        dis_fake, dis_real = self.Dis(torch.cat([fake, real])).split([len(fake), len(real)])
        return self.loss_dis(dis_fake, dis_real)

    def generator_loss(self):
        return self.loss_gen(self.Dis(self.sample()))
