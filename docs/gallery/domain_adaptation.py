"""
Domain adaptation on digits
===========================

A classifier is trained on labelled digits and has to read digits that are moved by one pixel, without labels for them.
MMD² between the features of both domains, added to the loss, makes the features similar.
"""

# %%
# The source and the target are two halves of the same small data set. The target is moved to the right.

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
source, source_labels = images[:900], labels[:900]
target, target_labels = (
    F.pad(images[900:], (1, 0), value=-1.0)[..., :8],
    labels[900:],
)

# %%
# **Compute the median distance of each batch.** The features grow while the classifier learns. A bandwidth fixed at the
# start is soon too small for them, and the penalty loses its effect.


def mixture(sigma):
    return RBFMix(sigmas=[sigma * factor for factor in (0.25, 0.5, 1, 2, 4)])


def no_penalty(source, target, state):
    return 0.0


def bandwidth_of_first_batch(source, target, state):
    if "kernel" not in state:
        state["kernel"] = mixture(median_distance(source, target))
    return mmd2(source, target, state["kernel"])


def bandwidth_of_each_batch(source, target, state):
    return mmd2(source, target, mixture(median_distance(source, target)))


def accuracies(penalty, seed):
    torch.manual_seed(seed)
    body = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU()
    )
    head = nn.Linear(64, 10)
    adam = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=2e-3)
    state, curve = {}, []
    for step in range(301):
        if step % 20 == 0:
            with torch.no_grad():
                right = head(body(target)).argmax(1) == target_labels
            curve.append(float(right.float().mean()))
        i, j = torch.randint(len(source), (64,)), torch.randint(len(target), (64,))
        source_features, target_features = body(source[i]), body(target[j])
        loss = F.cross_entropy(head(source_features), source_labels[i])
        loss = loss + penalty(source_features, target_features, state)
        adam.zero_grad()
        loss.backward()
        adam.step()
    return torch.tensor(curve)


# %%
# The picture shows the accuracy on the target: mean and range of five seeds.

figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.0), width_ratios=[1, 2.4])
pair = torch.cat([source[:3], target[:3]]).view(2, 3, 8, 8)
axes[0].imshow(pair.permute(0, 2, 1, 3).reshape(16, 24), cmap="gray_r")
axes[0].set(title="source above, target below", xticks=[], yticks=[])
axes[0].title.set_fontsize(9)
axes[0].grid(False)
steps = range(0, 301, 20)
for penalty in (no_penalty, bandwidth_of_first_batch, bandwidth_of_each_batch):
    curves = torch.stack([accuracies(penalty, seed) for seed in range(5)])
    name = penalty.__name__.replace("_", " ")
    print(f"{name}: accuracy {curves[:, -1].mean():.3f} at the end")
    (line,) = axes[1].plot(steps, curves.mean(0), label=name)
    low, high = curves.min(0).values, curves.max(0).values
    axes[1].fill_between(steps, low, high, color=line.get_color(), alpha=0.15)
axes[1].set(xlabel="step", ylabel="accuracy on the target", ylim=(0, 1))
axes[1].legend(loc="upper left")
plt.show()
