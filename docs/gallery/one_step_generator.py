"""
A small one-step generator
==========================

A generator can be trained without a discriminator, by MMD² between features of its samples and of the data. The data do
not change, so ``MMDReference`` prepares them once.
"""

# %%
# The data are digits of 8 x 8 pixels. The features are the pixels and the hidden layer of a small classifier, which is
# trained first and then frozen.

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from torch_mmd_losses import MMDReference, RBFMix, median_distance, relative

digits = load_digits()
images = torch.from_numpy(digits.images).float().div(8).sub(1).flatten(1)
labels = torch.from_numpy(digits.target).long()
order = torch.randperm(len(images))
images, labels = images[order], labels[order]

encoder = nn.Sequential(
    nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 32), nn.Tanh()
)
head = nn.Linear(32, 10)
adam = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=2e-3)
for _ in range(400):
    i = torch.randint(len(images), (128,))
    loss = F.cross_entropy(head(encoder(images[i])), labels[i])
    adam.zero_grad()
    loss.backward()
    adam.step()
encoder.requires_grad_(False)

# %%
# There is one reference for each kind of features. The last 300 digits are held out. Their MMD² is the floor, the value
# that a perfect generator would reach.

features = {"pixels": nn.Identity(), "classifier": encoder}
references, floors = {}, {}
for name, network in features.items():
    rows = network(images[:-300])
    sigma = median_distance(rows)
    kernel = RBFMix(sigmas=[sigma / 4, sigma / 2, sigma], weights=[1 / 3] * 3)
    references[name] = MMDReference(rows, kernel)
    floors[name] = float(references[name].mmd2(network(images[-300:])))

# %%
# ``relative`` divides each loss by its own value, so that neither dominates the other.

generator = nn.Sequential(
    nn.Linear(16, 256),
    nn.ReLU(),
    nn.Linear(256, 256),
    nn.ReLU(),
    nn.Linear(256, 64),
    nn.Tanh(),
)
adam = torch.optim.Adam(generator.parameters(), lr=1e-3)
log = {name: [] for name in references}
for step in range(1500):
    if step == 1000:
        adam.param_groups[0]["lr"] = 2e-4
    fake = generator(torch.randn(300, 16))
    values = {
        name: references[name].mmd2(features[name](fake)) for name in references
    }
    loss = sum(relative(value) for value in values.values())
    adam.zero_grad()
    loss.backward()
    adam.step()
    for name, value in values.items():
        log[name].append(value.detach())

# %%
# Unlike the losses of a GAN, MMD² falls as the samples improve.

with torch.no_grad():
    fake = generator(torch.randn(40, 16))


def sheet(images):
    padded = F.pad(images.view(5, 8, 8, 8), (1, 1, 1, 1), value=-1.0)
    return padded.permute(0, 2, 1, 3).reshape(50, 80)


figure, axes = plt.subplots(1, 3, figsize=(7.2, 2.6), width_ratios=[1.4, 1, 1])
for (name, curve), colour in zip(log.items(), ("C0", "C1"), strict=True):
    axes[0].semilogy(curve, color=colour, linewidth=0.8, label=name)
    axes[0].axhline(floors[name], color=colour, linestyle="--", linewidth=0.8)
axes[0].set(xlabel="step", title="MMD², floors dashed")
axes[0].legend()
for ax, pictures, title in zip(
    axes[1:], (images[:40], fake), ("real", "generated"), strict=True
):
    ax.imshow(sheet(pictures), cmap="gray_r")
    ax.set(title=title, xticks=[], yticks=[])
    ax.grid(False)
plt.show()
