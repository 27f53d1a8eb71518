"""A residual critic that sums over pixels, as in SNGAN: its scores start with a standard deviation of 14 to 40."""

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.c1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.c2 = nn.Conv2d(channels, channels, 3, padding=1)
        for layer in (self.c1, self.c2):
            nn.init.xavier_uniform_(layer.weight, gain=2**0.5)

    def forward(self, x):
        return x + self.c2(F.relu(self.c1(F.relu(x))))


class Critic(nn.Module):
    def __init__(self, channels=16, outputs=16):
        super().__init__()
        self.first = nn.Conv2d(1, channels, 3, padding=1)
        self.blocks = nn.Sequential(Block(channels), Block(channels), Block(channels))
        self.last = nn.Linear(channels, outputs)
        nn.init.xavier_uniform_(self.first.weight, gain=2**0.5)
        nn.init.xavier_uniform_(self.last.weight)

    def forward(self, x):
        h = F.relu(self.blocks(self.first(x)))
        return self.last(h.sum((2, 3)))


def make_generator():
    return nn.Sequential(
        nn.Linear(16, 128),
        nn.BatchNorm1d(128),
        nn.ReLU(),
        nn.Linear(128, 64),
        nn.Tanh(),
        nn.Unflatten(1, (1, 8, 8)),
    )


def train(images, critic, loss, *, steps):
    """Train, and log the mean kernel values every 50 steps; return the generator and the log."""
    G, log = make_generator(), []
    opt_d = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.5, 0.999))
    opt_g = torch.optim.Adam(G.parameters(), lr=2e-3, betas=(0.5, 0.999))
    for step in range(steps):
        real = images[torch.randint(len(images), (32,))]
        fake = G(torch.randn(32, 16))
        real_scores, fake_scores = critic(real), critic(fake.detach())
        loss_d = loss.discriminator(real=real_scores, fake=fake_scores)
        opt_d.zero_grad()
        loss_d.backward()
        opt_d.step()
        if step % 50 == 0:
            log.append(loss.terms(real=real_scores, fake=fake_scores))

        loss_g = loss.generator(real=critic(real).detach(), fake=critic(fake))
        opt_g.zero_grad()
        loss_g.backward()
        opt_g.step()
    return G, log
