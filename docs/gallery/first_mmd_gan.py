"""
First MMD-GAN
=============

A generator learns to draw points on a ring of eight spots. The training loop is that of any GAN. Only the loss, the
number of outputs of the discriminator and its normalisation differ.
"""

# %%
# The discriminator has 16 outputs per sample and no activation at the end. ``conv_spectral_norm`` bounds each of its
# layers; it also takes linear layers. ``scale`` sets how far the scores can spread.

import math

import matplotlib.pyplot as plt
import torch
from torch import nn

from torch_mmd_losses import MMDLoss, conv_spectral_norm


def draw_real(count):
    angle = 2 * math.pi * torch.randint(8, (count,)) / 8
    centres = torch.stack([angle.cos(), angle.sin()], 1)
    return 2 * centres + 0.1 * torch.randn(count, 2)


def network(inputs, outputs):
    return nn.Sequential(
        nn.Linear(inputs, 64),
        nn.LeakyReLU(0.1),
        nn.Linear(64, 64),
        nn.LeakyReLU(0.1),
        nn.Linear(64, outputs),
    )


generator = network(4, 2)
discriminator = conv_spectral_norm(network(2, 16), scale=1 / 0.55)

# %%
# ``MMDLoss()`` is the repulsive loss with the bounded kernel. Pass real and fake scores by keyword. The generator has
# the larger learning rate.

loss = MMDLoss()
adam_d = torch.optim.Adam(discriminator.parameters(), lr=5e-4, betas=(0.5, 0.999))
adam_g = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.999))
noise = torch.randn(500, 4)
shown = {}

for step in range(2001):
    if step in (0, 100, 500, 2000):
        with torch.no_grad():
            shown[step] = generator(noise)

    real = draw_real(128)
    fake = generator(torch.randn(128, 4))

    loss_d = loss.discriminator(
        real=discriminator(real), fake=discriminator(fake.detach())
    )
    adam_d.zero_grad()
    loss_d.backward()
    adam_d.step()

    loss_g = loss.generator(
        real=discriminator(real).detach(), fake=discriminator(fake)
    )
    adam_g.zero_grad()
    loss_g.backward()
    adam_g.step()

# %%
# Neither loss shows the progress, since the discriminator changes along with the generator. The samples show it.

real = draw_real(500)
figure, axes = plt.subplots(1, 4, figsize=(7.2, 2.5), sharex=True, sharey=True)
for ax, (step, fake) in zip(axes, shown.items(), strict=True):
    ax.scatter(*real.T, s=2, alpha=0.4, label="real")
    ax.scatter(*fake.T, s=2, label="fake")
    ax.set(title=f"step {step}", aspect="equal", xlim=(-3, 3), ylim=(-3, 3))
handles, names = axes[0].get_legend_handles_labels()
figure.legend(handles, names, loc="outside lower center", ncols=2, markerscale=3)
plt.show()
