"""Domain adaptation that fails: a large shift, after which neither MMD^2 nor the loss of the source shows the failure.

The data, the networks and the number of steps are those of `domain_adaptation`, but the digits may move farther.
"""

import torch
from domain_adaptation import no_penalty, of_each_batch
from torch import nn
from torch.nn import functional as F


def train(images, labels, penalty, *, shift, seed, steps=200):
    """Return the accuracy on the target, MMD^2 of the features of all images, and the loss of the source."""
    torch.manual_seed(seed)
    source, source_labels, target_labels = images[:900], labels[:900], labels[900:]
    target = F.pad(images[900:], (shift, 0, 0, 0), value=-1.0)[..., :8]

    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU())
    head = nn.Linear(64, 10)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=2e-3)
    for _ in range(steps):
        i, j = torch.randperm(len(source))[:64], torch.randperm(len(target))[:64]
        source_features, target_features = body(source[i]), body(target[j])
        loss = F.cross_entropy(head(source_features), source_labels[i])
        loss = loss + penalty(source_features, target_features)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        right = head(body(target)).argmax(1) == target_labels
        distance = of_each_batch(body(source), body(target))
        return right.float().mean().item(), distance.item(), F.cross_entropy(head(body(source)), source_labels).item()


if __name__ == "__main__":
    import small_digits as digits

    for shift in (1, 2, 3):
        for penalty in (no_penalty, of_each_batch):
            found = [train(*digits.load(), penalty, shift=shift, seed=seed) for seed in range(3)]
            columns = list(zip(*found, strict=True))
            means = " ".join(f"{sum(column) / len(column):.3f}" for column in columns)
            print(shift, penalty.__name__, means, [round(value, 3) for value in columns[0]], flush=True)
