"""Domain adaptation in the way of DAN: a classifier of labelled digits that learns to read unlabelled, moved ones.

The target digits are moved one pixel to the right. MMD^2 makes the features of both domains alike.
"""

import math

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


def mixture(first, second):
    """Return a mixture of kernels around the median distance of a batch."""
    sigma = median_distance(first, second)
    return RBFMix(sigmas=[sigma * factor for factor in (0.25, 0.5, 1, 2, 4)])


def of_each_batch(source, target):
    return mmd2(source, target, mixture(source, target))


class FixedAtStart:
    kernel = None

    def __call__(self, source, target):
        if self.kernel is None:
            self.kernel = mixture(source, target)
        return mmd2(source, target, self.kernel)


def rising(weight):
    """Return the schedule of Ganin et al. (2016), from zero at the start to `weight` at the end."""
    return lambda progress: weight * (2 / (1 + math.exp(-10 * progress)) - 1)


def moved(images, pixels):
    """Return images moved to the right."""
    return F.pad(images, (pixels, 0), value=-1.0)[..., : images.shape[-1]]


def halves(images, labels, pixels):
    """Return the source, its labels, the target, which is moved, and the labels of the target."""
    return images[:900], labels[:900], moved(images[900:], pixels), labels[900:]


def train(source, source_labels, target, penalty, *, seed, steps=200, augment=lambda images: images):
    """Train a classifier with a penalty whose weight rises to 1, and return its encoder and its last layer."""
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU())
    head = nn.Linear(64, 10)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=2e-3)
    weight = rising(1.0)
    for step in range(steps):
        i, j = torch.randperm(len(source))[:64], torch.randperm(len(target))[:64]
        source_features, target_features = body(augment(source[i])), body(target[j])
        loss = F.cross_entropy(head(source_features), source_labels[i])
        loss = loss + weight(step / steps) * penalty(source_features, target_features)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return body, head


@torch.no_grad()
def accuracy(images, labels, penalty, *, seed, steps=200):
    """Train on the first half of the digits and return the accuracy on the second half, which is moved."""
    source, source_labels, target, target_labels = halves(images, labels, 1)
    with torch.enable_grad():
        body, head = train(source, source_labels, target, penalty, seed=seed, steps=steps)
    return (head(body(target)).argmax(1) == target_labels).float().mean().item()


if __name__ == "__main__":
    import small_digits as digits

    for make in (lambda: no_penalty, lambda: default_kernel, FixedAtStart, lambda: of_each_batch):
        penalty = make()
        accuracies = [accuracy(*digits.load(), make(), seed=seed) for seed in range(5)]
        name = getattr(penalty, "__name__", type(penalty).__name__)
        print(name, f"{sum(accuracies) / 5:.3f}", [round(value, 3) for value in accuracies])

    medians = []

    def recorded(source, target):
        medians.append(float(median_distance(source, target)))
        return of_each_batch(source, target)

    accuracy(*digits.load(), recorded, seed=0)
    print("median distance of the features in steps 0, 50 and 100:", [round(medians[i], 1) for i in (0, 50, 100)])
