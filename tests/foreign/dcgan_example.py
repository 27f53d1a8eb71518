"""A program in the shape of PyTorch's DCGAN example: `weights_init`, and a `forward` that flattens its output.

`NaiveDiscriminator` and `criterion_step` are what remains of the example if only the loss and the spectral norm are
replaced. `Discriminator` and `one_backward` are the right forms.
"""

import torch
from torch import nn
from torch.utils.data import DataLoader

from torch_mmd_losses import MMDLoss, conv_spectral_norm

nz = 16


def weights_init(m):
    name = type(m).__name__
    if "Conv" in name:
        nn.init.normal_(m.weight, 0.0, 0.05)
    elif "BatchNorm" in name:
        nn.init.normal_(m.weight, 1.0, 0.05)
        nn.init.zeros_(m.bias)


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(nz, 32, 4, 1, 0, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(True),
            nn.ConvTranspose2d(32, 1, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, z):
        return self.main(z)


class NaiveDiscriminator(nn.Module):
    def __init__(self, outputs=16):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(1, 16, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(16, 32, 4, 2, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(32, outputs, 2, 1, 0, bias=False),
        )
        conv_spectral_norm(self.main, scale=1 / 0.55)

    def forward(self, x):
        return self.main(x).view(-1, 1).squeeze(1)


class Discriminator(nn.Module):
    def __init__(self, outputs=16):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(1, 16, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(16, 32, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(32, outputs, 2, 1, 0, bias=False),
        )

    def forward(self, x):
        return self.main(x).flatten(1)


def criterion_step(criterion, netD, real, fake):
    output = netD(real)
    errD_real = criterion(output, torch.ones(len(output)))
    errD_real.backward()
    output = netD(fake.detach())
    errD_fake = criterion(output, torch.zeros(len(output)))
    errD_fake.backward()


def two_backwards(criterion, netD, real, fake):
    with torch.no_grad():
        fake_output = netD(fake)
    output = netD(real)
    criterion.discriminator(real=output, fake=fake_output).backward()
    real_output = output.detach()
    output = netD(fake.detach())
    criterion.discriminator(real=real_output, fake=output).backward()


def one_backward(criterion, netD, real, fake):
    errD = criterion.discriminator(real=netD(real), fake=netD(fake.detach()))
    errD.backward()


def train(images, netD, update_d=one_backward, *, epochs, drop_last=True):
    netG = Generator()
    netG.apply(weights_init)
    criterion = MMDLoss()
    dataloader = DataLoader(images, batch_size=64, shuffle=True, drop_last=drop_last)
    optimizerD = torch.optim.Adam(netD.parameters(), lr=2e-3, betas=(0.5, 0.999))
    optimizerG = torch.optim.Adam(netG.parameters(), lr=2e-3, betas=(0.5, 0.999))
    for _ in range(epochs):
        for real in dataloader:
            fake = netG(torch.randn(real.size(0), nz, 1, 1))
            netD.zero_grad()
            update_d(criterion, netD, real, fake)
            optimizerD.step()

            netG.zero_grad()
            errG = criterion.generator(real=netD(real).detach(), fake=netD(fake))
            errG.backward()
            optimizerG.step()
    return netG
