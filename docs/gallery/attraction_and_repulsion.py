"""
Attraction and repulsion
========================

The discriminator of an MMD-GAN moves scores. With the attractive loss it pulls real scores together, and fake scores as
well. With the repulsive loss it pushes real scores apart and pulls fake scores together. Here the scores are particles
that follow the gradient of each loss directly, without a network.
"""

# %%
# ``lambda_=-1`` is the attractive loss, and ``lambda_=1``, the default, is the repulsive loss. Both move fake scores
# away from real scores. Without bounds on the kernel, the motion ends only at distances at which the kernel is flat.

import matplotlib.pyplot as plt
import torch

from torch_mmd_losses import MMDLoss, RBFBKernel, RBFKernel

start_real = 0.7 * torch.randn(40, 2)
start_fake = 0.7 * torch.randn(40, 2) + torch.tensor([1.0, 0.0])


def paths(loss, steps=400, rate=2.0):
    real = start_real.clone().requires_grad_()
    fake = start_fake.clone().requires_grad_()
    path = []
    for _ in range(steps):
        path.append((real.detach().clone(), fake.detach().clone()))
        value = loss.discriminator(real=real, fake=fake)
        slope_real, slope_fake = torch.autograd.grad(value, [real, fake])
        with torch.no_grad():
            real -= rate * slope_real
            fake -= rate * slope_fake
    return [torch.stack(positions) for positions in zip(*path, strict=True)]


losses = {
    "attractive": MMDLoss(RBFKernel(), lambda_=-1),
    "repulsive": MMDLoss(RBFKernel(), lambda_=1),
    "repulsive, bounded kernel": MMDLoss(RBFBKernel(), lambda_=1),
}

# %%
# Small dots show the start, large dots the end. The attractive loss collapses the real scores to one point, so the
# discriminator loses the differences between real samples. The repulsive loss keeps them apart. The bounded kernel
# stops pairs that are already far enough apart or close enough together.

figure, axes = plt.subplots(1, 3, figsize=(7.2, 2.8), sharex=True, sharey=True)
for ax, (name, loss) in zip(axes, losses.items(), strict=True):
    for path, colour, label in zip(
        paths(loss), ("C0", "C1"), ("real", "fake"), strict=True
    ):
        ax.plot(path[..., 0], path[..., 1], color=colour, linewidth=0.6, alpha=0.5)
        ax.scatter(*path[0].T, s=2, color=colour)
        ax.scatter(*path[-1].T, s=14, color=colour, label=label)
    ax.set(aspect="equal")
    ax.set_title(name, fontsize=10)
axes[0].legend()
plt.show()
