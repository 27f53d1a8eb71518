"""Domain adaptation that fails: a large shift, after which neither MMD^2 nor the loss of the source shows the failure.

The data, the networks and the number of steps are those of `domain_adaptation`, but the digits may move farther.
Classifiers trained with different seeds agree on few of the target samples if the shift is too large.
"""

from itertools import combinations
from statistics import fmean

import torch
from domain_adaptation import halves, no_penalty, of_each_batch, train
from torch.nn import functional as F

AT_MOST = 3
SEEDS = range(5)


def randomly_moved(images):
    """Move each image to the right or to the left by up to `AT_MOST` pixels."""
    wide = F.pad(images, (AT_MOST, AT_MOST), value=-1.0)
    width = images.shape[-1]
    columns = torch.randint(2 * AT_MOST + 1, (len(images), 1)) + torch.arange(width)
    return wide.gather(-1, columns.view(-1, 1, 1, width).expand_as(images))


WAYS = {
    "neither": {"penalty": no_penalty},
    "MMD^2": {"penalty": of_each_batch},
    "augmentation": {"penalty": no_penalty, "augment": randomly_moved},
    "augmentation and MMD^2": {"penalty": of_each_batch, "augment": randomly_moved},
}


def answers(images, labels, way, *, shift, seed, steps=200):
    """Return the classes found in the target, MMD^2 of the features of all images, and the loss of the source."""
    source, source_labels, target, _ = halves(images, labels, shift)
    body, head = train(source, source_labels, target, **WAYS[way], seed=seed, steps=steps)
    with torch.no_grad():
        features, target_features = body(source), body(target)
        distance = of_each_batch(features, target_features).item()
        return head(target_features).argmax(1), distance, F.cross_entropy(head(features), source_labels).item()


def agreement(found):
    """Return the mean share of target samples on which two of several classifiers agree."""
    return fmean((a == b).float().mean().item() for a, b in combinations(found, 2))


if __name__ == "__main__":
    import small_digits as digits

    truth = digits.load()[1][900:]
    for shift in (1, 2, 3):
        for way in WAYS:
            runs = [answers(*digits.load(), way, shift=shift, seed=seed) for seed in SEEDS]
            found, distances, losses = zip(*runs, strict=True)
            right = [(classes == truth).float().mean().item() for classes in found]
            print(
                f"{shift} {way}: {fmean(right):.3f} ({min(right):.3f} to {max(right):.3f}),",
                f"agreement {agreement(found):.3f}, MMD^2 {fmean(distances):.3f}, loss {fmean(losses):.3f}",
                flush=True,
            )
