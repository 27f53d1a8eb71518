"""Choices in domain adaptation: which layer is matched, with which weight, and over all classes or within each.

The data, the networks and the number of steps are those of `domain_adaptation`.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torch_mmd_losses import RBFMix, grouped_mmd2, median_distance, mmd2

CLASSES = 10


class Domain(NamedTuple):
    """A batch of one domain."""

    hidden: Tensor
    """The first hidden layer."""
    features: Tensor
    """The last hidden layer."""
    logits: Tensor
    labels: Tensor


def mixture(first, second):
    sigma = median_distance(first, second)
    return RBFMix(sigmas=[sigma * factor for factor in (0.25, 0.5, 1, 2, 4)])


def of_layers(*names):
    """Return the sum of MMD^2 of some layers."""

    def penalty(source, target):
        layers = [(getattr(source, name), getattr(target, name)) for name in names]
        return sum(mmd2(x, y, mixture(x, y)) for x, y in layers)

    return penalty


def no_penalty(source, target):
    return 0.0


def within_classes(source, target):
    """Return the mean MMD^2 of the classes. Target samples belong to classes with the probabilities they are given."""
    own = F.one_hot(source.labels, CLASSES).T.float()
    guessed = target.logits.softmax(1).detach().T
    present = (own.sum(1) >= 2) & (guessed.sum(1) >= 2)
    x, y = (domain.features.expand(int(present.sum()), -1, -1) for domain in (source, target))
    kernel = mixture(source.features, target.features)
    weights = {"real_weights": own[present], "fake_weights": guessed[present]}
    return grouped_mmd2(x, y, kernel, estimator="unbiased", **weights).mean()


def constant(weight):
    return lambda progress: weight


def rising(weight):
    """Return the schedule of Ganin et al. (2016), from zero at the start to `weight` at the end."""
    return lambda progress: weight * (2 / (1 + math.exp(-10 * progress)) - 1)


CHOICES = {
    "no penalty": (no_penalty, constant(1.0)),
    "first hidden layer": (of_layers("hidden"), constant(1.0)),
    "last hidden layer": (of_layers("features"), constant(1.0)),
    "logits": (of_layers("logits"), constant(1.0)),
    "last hidden layer and logits": (of_layers("features", "logits"), constant(1.0)),
    "last hidden layer, weight 0.1": (of_layers("features"), constant(0.1)),
    "last hidden layer, weight 5": (of_layers("features"), constant(5.0)),
    "last hidden layer, weight rising to 5": (of_layers("features"), rising(5.0)),
    "within classes": (within_classes, constant(1.0)),
    "within classes, weight rising to 1": (within_classes, rising(1.0)),
    "within classes, weight rising to 5": (within_classes, rising(5.0)),
}


def accuracy(images, labels, penalty, weight, *, seed, steps=200):
    """Train on the first half of the digits and return the accuracy on the second half, which is moved."""
    torch.manual_seed(seed)
    source, source_labels, target_labels = images[:900], labels[:900], labels[900:]
    target = F.pad(images[900:], (1, 0, 0, 0), value=-1.0)[..., :8]

    first = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU())
    last = nn.Sequential(nn.Linear(128, 64), nn.ReLU())
    head = nn.Linear(64, CLASSES)
    optimizer = torch.optim.Adam([*first.parameters(), *last.parameters(), *head.parameters()], lr=2e-3)

    def seen(images, labels):
        hidden = first(images)
        features = last(hidden)
        return Domain(hidden, features, head(features), labels)

    for step in range(steps):
        i, j = torch.randperm(len(source))[:64], torch.randperm(len(target))[:64]
        of_source, of_target = seen(source[i], source_labels[i]), seen(target[j], target_labels[j])
        loss = F.cross_entropy(of_source.logits, of_source.labels)
        loss = loss + weight(step / steps) * penalty(of_source, of_target._replace(labels=None))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return (seen(target, target_labels).logits.argmax(1) == target_labels).float().mean().item()


if __name__ == "__main__":
    import small_digits as digits

    for name, (penalty, weight) in CHOICES.items():
        accuracies = [accuracy(*digits.load(), penalty, weight, seed=seed) for seed in range(5)]
        print(name, f"{sum(accuracies) / 5:.3f}", [round(value, 3) for value in accuracies], flush=True)
