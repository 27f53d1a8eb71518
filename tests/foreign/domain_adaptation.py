"""Domain adaptation in the way of DAN: a classifier of labelled digits that learns to read unlabelled, moved ones.

The target digits are moved one pixel to the right. MMD^2 makes the features of both domains alike.
"""

import torch
from torch import nn
from torch.nn import functional as F

from torch_mmd_losses import RBFKernel, RBFMix, median_distance, mmd2


def no_penalty(source, target):
    return 0.0


def too_narrow(source, target):
    return mmd2(source, target, RBFKernel(0.01))


def default_kernel(source, target):
    return mmd2(source, target, RBFKernel())


def of_each_batch(source, target):
    sigma = median_distance(source, target)
    return mmd2(source, target, RBFMix(sigmas=[sigma * factor for factor in (0.25, 0.5, 1, 2, 4)]))


class FixedAtStart:
    kernel = None

    def __call__(self, source, target):
        if self.kernel is None:
            sigma = median_distance(source, target)
            self.kernel = RBFMix(sigmas=[sigma * factor for factor in (0.25, 0.5, 1, 2, 4)])
        return mmd2(source, target, self.kernel)


def accuracy(images, labels, penalty, *, seed, steps=200, weight=1.0):
    """Train on the first half of the digits and return the accuracy on the second half, which is moved."""
    torch.manual_seed(seed)
    source, source_labels, target_labels = images[:900], labels[:900], labels[900:]
    target = F.pad(images[900:], (1, 0, 0, 0), value=-1.0)[..., :8]

    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU())
    head = nn.Linear(64, 10)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=2e-3)
    for _ in range(steps):
        i, j = torch.randperm(len(source))[:64], torch.randperm(len(target))[:64]
        source_features, target_features = body(source[i]), body(target[j])
        loss = F.cross_entropy(head(source_features), source_labels[i])
        loss = loss + weight * penalty(source_features, target_features)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return (head(body(target)).argmax(1) == target_labels).float().mean().item()


if __name__ == "__main__":
    import small_digits as digits

    for make in (lambda: no_penalty, lambda: default_kernel, FixedAtStart, lambda: of_each_batch):
        penalty = make()
        accuracies = [accuracy(*digits.load(), make(), seed=seed) for seed in range(5)]
        name = getattr(penalty, "__name__", type(penalty).__name__)
        print(name, f"{sum(accuracies) / 5:.3f}", [round(value, 3) for value in accuracies])
