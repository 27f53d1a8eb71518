"""Choices in domain adaptation: which layer is matched, with which weight, and over all classes or within each.

The data, the networks and the number of steps are those of `domain_adaptation`.
"""

from typing import NamedTuple

import torch
from domain_adaptation import halves, mixture, rising
from torch import Tensor, nn
from torch.nn import functional as F

from torch_mmd_losses import grouped_mmd2, mmd2

CLASSES = 10


class Domain(NamedTuple):
    """A batch of one domain."""

    hidden: Tensor
    """The first hidden layer."""
    features: Tensor
    """The last hidden layer."""
    logits: Tensor
    labels: Tensor


def of_layers(*names):
    """Return the sum of MMD^2 of some layers."""

    def penalty(source, target):
        layers = [(getattr(source, name), getattr(target, name)) for name in names]
        return sum(mmd2(x, y, mixture(x, y)) for x, y in layers)

    return penalty


def no_penalty(source, target):
    return 0.0


def balanced(source, target):
    """Return MMD^2 with weights that make the classes of the source as frequent as they seem to be in the target."""
    guessed = target.logits.softmax(1).detach().mean(0)
    counts = torch.bincount(source.labels, minlength=CLASSES)
    weights = guessed[source.labels] / counts[source.labels]
    return mmd2(source.features, target.features, mixture(source.features, target.features), real_weights=weights)


def within_classes(source, target):
    """Return the mean MMD^2 of the classes. Target samples belong to classes with the probabilities they are given."""
    own = F.one_hot(source.labels, CLASSES).T.float()
    guessed = target.logits.softmax(1).detach().T
    present = (own.sum(1) >= 2) & (guessed.sum(1) >= 2)
    count = int(present.sum())
    if count == 0:
        return 0.0
    x, y = (domain.features.expand(count, -1, -1) for domain in (source, target))
    kernel = mixture(source.features, target.features)
    weights = {"real_weights": own[present], "fake_weights": guessed[present]}
    return grouped_mmd2(x, y, kernel, estimator="unbiased", **weights).mean()


def constant(weight):
    return lambda progress: weight


CHOICES = {
    "no penalty": (no_penalty, constant(1.0)),
    "first hidden layer": (of_layers("hidden"), rising(1.0)),
    "last hidden layer": (of_layers("features"), rising(1.0)),
    "logits": (of_layers("logits"), rising(1.0)),
    "last hidden layer and logits": (of_layers("features", "logits"), rising(1.0)),
    "last hidden layer, constant 0.1": (of_layers("features"), constant(0.1)),
    "last hidden layer, constant 1": (of_layers("features"), constant(1.0)),
    "last hidden layer, constant 5": (of_layers("features"), constant(5.0)),
    "last hidden layer, rising to 0.1": (of_layers("features"), rising(0.1)),
    "last hidden layer, rising to 5": (of_layers("features"), rising(5.0)),
    "within classes": (within_classes, rising(1.0)),
    "within classes, constant 1": (within_classes, constant(1.0)),
    "within classes, rising to 5": (within_classes, rising(5.0)),
}


def train(source, source_labels, target, penalty, weight, *, seed, steps=200, size=64):
    """Train a classifier with a penalty, and return the classes that it finds in the target."""
    torch.manual_seed(seed)
    first = nn.Sequential(nn.Flatten(), nn.Linear(source[0].numel(), 128), nn.ReLU())
    last = nn.Sequential(nn.Linear(128, 64), nn.ReLU())
    head = nn.Linear(64, CLASSES)
    optimizer = torch.optim.Adam([*first.parameters(), *last.parameters(), *head.parameters()], lr=2e-3)

    def seen(images, labels=None):
        hidden = first(images)
        features = last(hidden)
        return Domain(hidden, features, head(features), labels)

    for step in range(steps):
        i, j = torch.randperm(len(source))[:size], torch.randperm(len(target))[:size]
        of_source, of_target = seen(source[i], source_labels[i]), seen(target[j])
        loss = F.cross_entropy(of_source.logits, of_source.labels)
        loss = loss + weight(step / steps) * penalty(of_source, of_target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return seen(target).logits.argmax(1)


def accuracy(images, labels, penalty, weight, *, seed, **options):
    """Train on the first half of the digits and return the accuracy on the second half, which is moved."""
    source, source_labels, target, target_labels = halves(images, labels, 1)
    found = train(source, source_labels, target, penalty, weight, seed=seed, **options)
    return (found == target_labels).float().mean().item()


def line(name, penalty, weight, **options):
    """Return the mean and the range of the accuracy of seeds 0 to 4."""
    found = [accuracy(*digits.load(), penalty, weight, seed=seed, **options) for seed in range(5)]
    return f"{name}: {sum(found) / 5:.3f} ({min(found):.3f} to {max(found):.3f})"


if __name__ == "__main__":
    import small_digits as digits

    for name, (penalty, weight) in CHOICES.items():
        print(line(name, penalty, weight), flush=True)
    for steps in (100, 200, 400, 800):
        for name in ("no penalty", "last hidden layer"):
            print(line(f"{name}, {steps} steps", *CHOICES[name], steps=steps), flush=True)
    for size in (16, 32, 128):
        print(line(f"last hidden layer, {size} samples", *CHOICES["last hidden layer"], size=size), flush=True)
