"""WGAN-GP with three backwards for one step of the critic: real scores, fake scores and the gradient penalty.

An MMD-GAN-GP comes from it by a loss that takes both groups of scores, so that two of the three backwards become one.
"""

import torch
from torch import nn

from torch_mmd_losses import gradient_penalty, interpolation_points, witness

LAMBDA = 10


def make_critic(outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.LeakyReLU(0.1), nn.Linear(128, outputs))


def make_generator():
    return nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))


class Wasserstein:
    """The original, with our gradient penalty in place of `calc_gradient_penalty`."""

    outputs = 1

    def critic_backwards(self, netD, real, fake):
        one, mone = torch.tensor(1.0), torch.tensor(-1.0)
        D_real = netD(real).mean()
        D_real.backward(mone)
        D_fake = netD(fake).mean()
        D_fake.backward(one)
        points = interpolation_points(real, fake)
        penalty = LAMBDA * gradient_penalty(netD(points), inputs=points)
        penalty.backward()

    def generator_loss(self, netD, real, fake):
        return -netD(fake).mean()


class NaiveMMD:
    """Both losses are called with what the loop has at that place: one group of scores at a time."""

    def __init__(self, loss, outputs=16):
        self.loss, self.outputs = loss, outputs

    def critic_backwards(self, netD, real, fake):
        real_scores = netD(real)
        fake_scores = netD(fake)
        self.loss.discriminator(real=real_scores, fake=fake_scores).backward()
        points = interpolation_points(real, fake)
        values = witness(netD(points), real=real_scores, fake=fake_scores, kernel=self.loss.kernel)
        penalty = gradient_penalty(values, inputs=points)
        penalty.backward()

    def generator_loss(self, netD, real, fake):
        return self.loss.generator(real=netD(real).detach(), fake=netD(fake))


class MMD(NaiveMMD):
    """One backward for the sum."""

    def critic_backwards(self, netD, real, fake):
        real_scores = netD(real)
        fake_scores = netD(fake)
        points = interpolation_points(real, fake)
        values = witness(netD(points), real=real_scores, fake=fake_scores, kernel=self.loss.kernel)
        loss = self.loss.discriminator(real=real_scores, fake=fake_scores)
        (loss + gradient_penalty(values, inputs=points)).backward()


def train(images, method, *, steps, critic_steps=2):
    netG, netD = make_generator(), make_critic(method.outputs)
    optimizerD = torch.optim.Adam(netD.parameters(), lr=1e-3, betas=(0.5, 0.9))
    optimizerG = torch.optim.Adam(netG.parameters(), lr=1e-3, betas=(0.5, 0.9))
    for _ in range(steps):
        for _ in range(critic_steps):
            real = images[torch.randint(len(images), (64,))]
            fake = netG(torch.randn(64, 16)).detach()
            optimizerD.zero_grad()
            method.critic_backwards(netD, real, fake)
            optimizerD.step()
        optimizerG.zero_grad()
        method.generator_loss(netD, real, netG(torch.randn(64, 16))).backward()
        optimizerG.step()
    return netG
