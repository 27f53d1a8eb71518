"""How far samples are from the data: the Frechet distance in the features of a small classifier of the same digits."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.image.fid import FrechetInceptionDistance

from digits.data import COUNT, Digits

HELD_OUT = COUNT // 5
"""How many digits the classifier does not see in training."""

EPOCHS = 12


class FeatureNetwork(nn.Module):
    """A classifier of images `(n, 1, 32, 32)` whose last hidden layer provides the features `(n, 32)`."""

    num_features = 32
    """Where the metric looks for the dimension; few, so that 898 images determine the covariances."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(1, 16, 4, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(32, 64, 4, stride=2, padding=1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(64 * 4 * 4, self.num_features)),
        )
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(self.num_features, 10))

    def forward(self, images: Tensor) -> Tensor:
        """Return the features `(n, 32)`."""
        features: Tensor = self.features(images)
        return features

    def classify(self, images: Tensor) -> Tensor:
        """Return one logit per class, `(n, 10)`."""
        logits: Tensor = self.head(self(images))
        return logits


def train_features(digits: Digits) -> tuple[FeatureNetwork, float]:
    """Return a trained network, frozen, and the share of held-out digits that it classifies rightly."""
    network = FeatureNetwork()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(EPOCHS):
        for picked in torch.randperm(COUNT - HELD_OUT).split(64):
            optimizer.zero_grad()
            F.cross_entropy(network.classify(digits.images[picked]), digits.labels[picked]).backward()
            optimizer.step()
    return network.eval().requires_grad_(False), _accuracy(network, digits)


@torch.no_grad()
def _accuracy(network: FeatureNetwork, digits: Digits) -> float:
    predicted = network.classify(digits.images[-HELD_OUT:]).argmax(1)
    return (predicted == digits.labels[-HELD_OUT:]).double().mean().item()


class FrechetDistance:
    """Distance of images to a fixed set of real ones; both counts should be the same, as few images add a bias.

    Args:
        network: where the features come from.
        real: images `(n, 1, 32, 32)` in [-1, 1].
    """

    def __init__(self, network: FeatureNetwork, real: Tensor) -> None:
        self.metric = FrechetInceptionDistance(feature=network, reset_real_features=False)
        self.metric.update(real, real=True)

    def __call__(self, images: Tensor) -> float:
        """Return the distance of images `(n, 1, 32, 32)`."""
        self.metric.reset()
        self.metric.update(images, real=False)
        return self.metric.compute().item()
