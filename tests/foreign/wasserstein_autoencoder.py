"""A Wasserstein autoencoder, WAE-MMD: reconstruction error plus MMD^2 of the codes to a prior, C / (C + d^2)."""

import torch
from torch import nn

from torch_mmd_losses import Kernel

z_dim, sigma_z = 8, 1.0


class InverseMultiquadric(Kernel):
    def __init__(self, C):
        super().__init__()
        self.C = C

    def from_sq_dist(self, sq_dist):
        return self.C / (self.C + sq_dist)


def train(images, penalty, *, steps, lambda_=10.0):
    """Train with `lambda_ * penalty(codes, prior)`; return the encoder and the decoder."""
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, z_dim))
    decoder = nn.Sequential(nn.Linear(z_dim, 128), nn.ReLU(), nn.Linear(128, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=2e-3)
    for _ in range(steps):
        x = images[torch.randint(len(images), (100,))]
        z_fake = encoder(x)
        z_real = torch.randn(len(x), z_dim) * sigma_z
        reconstruction = (decoder(z_fake) - x).square().sum((1, 2, 3)).mean()
        loss = reconstruction + lambda_ * penalty(z_fake, z_real)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return encoder, decoder
