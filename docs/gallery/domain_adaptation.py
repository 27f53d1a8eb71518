"""
Domain adaptation on digits
===========================

A classifier is trained on labelled digits and has to read digits that are moved to the right, without labels for them.
Two remedies are compared: augmentation of the source by the same kind of shift, and MMD² between the features of both
domains, added to the loss.
"""

# %%
# The source and the target are two halves of the same small data set. The target is moved by one or two pixels.

import math

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from torch_mmd_losses import RBFMix, median_distance, mmd2

digits = load_digits()
order = torch.randperm(len(digits.target))
images = torch.from_numpy(digits.images).float().div(8).sub(1)[order]
labels = torch.from_numpy(digits.target).long()[order]
source, source_labels, target_labels = images[:900], labels[:900], labels[900:]


def target_moved_by(pixels):
    return F.pad(images[900:], (pixels, 0), value=-1.0)[..., :8]


# %%
# The augmentation moves each image of the source by up to three pixels to either side. The penalty is MMD² with a kernel
# around the median distance of each batch (:doc:`the reason </practice>`), and its weight rises from 0 to 1.


def randomly_moved(batch):
    wide = F.pad(batch, (3, 3), value=-1.0)
    columns = torch.randint(7, (len(batch), 1)) + torch.arange(8)
    return wide.gather(2, columns[:, None].expand(-1, 8, -1))


def mmd2_of_batch(first, second):
    sigma = median_distance(first, second)
    kernel = RBFMix(sigmas=[sigma * factor for factor in (0.25, 0.5, 1, 2, 4)])
    return mmd2(first, second, kernel)


def accuracies(target, augment, match, seed, steps=300):
    torch.manual_seed(seed)
    body = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU()
    )
    head = nn.Linear(64, 10)
    adam = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=2e-3)
    curve = []
    for step in range(steps + 1):
        if step % 20 == 0:
            with torch.no_grad():
                right = head(body(target)).argmax(1) == target_labels
            curve.append(float(right.float().mean()))
        i, j = torch.randint(len(source), (64,)), torch.randint(len(target), (64,))
        batch = randomly_moved(source[i]) if augment else source[i]
        features = body(batch)
        loss = F.cross_entropy(head(features), source_labels[i])
        if match:
            weight = 2 / (1 + math.exp(-10 * step / steps)) - 1
            loss = loss + weight * mmd2_of_batch(features, body(target[j]))
        adam.zero_grad()
        loss.backward()
        adam.step()
    return torch.tensor(curve)


# %%
# The picture shows the accuracy on the target: mean and range of three seeds. With one pixel, MMD² alone helps. With two
# pixels it does not: it matches the features of wrong classes, and its value is small nevertheless. The augmentation
# helps in both cases. :doc:`Match features </features>` says how to notice such a failure without labels, and which
# remedy to take when.

ways = {
    "neither": (False, False),
    "MMD²": (False, True),
    "augmentation": (True, False),
    "augmentation and MMD²": (True, True),
}
figure, axes = plt.subplots(1, 3, figsize=(7.6, 3.2), width_ratios=[0.8, 1.6, 1.6])
rows = [source[:3], target_moved_by(1)[:3], target_moved_by(2)[:3]]
rows = torch.cat(rows).view(3, 3, 8, 8).permute(0, 2, 1, 3).reshape(24, 24)
axes[0].imshow(rows, cmap="gray_r")
axes[0].set(
    xticks=[], yticks=[4, 12, 20], yticklabels=["source", "1 pixel", "2 pixels"]
)
axes[0].grid(False)
steps = range(0, 301, 20)
for pixels, place in ((1, axes[1]), (2, axes[2])):
    for name, (augment, match) in ways.items():
        target = target_moved_by(pixels)
        curves = torch.stack(
            [accuracies(target, augment, match, seed) for seed in range(3)]
        )
        print(f"{pixels}, {name}: accuracy {curves[:, -1].mean():.2f} at the end")
        (line,) = place.plot(steps, curves.mean(0), label=name)
        low, high = curves.min(0).values, curves.max(0).values
        place.fill_between(steps, low, high, color=line.get_color(), alpha=0.15)
    place.set(title=f"target moved by {pixels}", xlabel="step", ylim=(0, 1))
axes[1].set(ylabel="accuracy on the target")
figure.legend(
    *axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=4
)
plt.show()
