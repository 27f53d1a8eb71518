"""Train a small classifier of Fashion-MNIST or CIFAR-10, whose features measure the samples of a GAN.

It uses one thread, so that the same command on the same machine gives the same weights bit for bit.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

if __name__ == "__main__":  # before other imports, so that all missing packages are named at once
    import evaluation  # noqa: F401

import torch
import tyro
from evaluation.provenance import circumstances, digest_of_network
from torch import Tensor, nn
from torch.nn import functional as F
from training.batches import centred
from training.checkpoints import read_tensors
from training.errors import RefusedError
from training.files import replacing
from training.images import FORMATS, fashion_mnist_data, load, torchvision

FORMAT = "torch-mmd-losses classifier 1"
FEATURES = 64  # so few that thousands of images determine their covariances
BATCH, RATE = 128, 3e-3


class Classifier(nn.Module):
    """A network from images `(n, channels, size, size)` in [-1, 1] to features `(n, 64)` and logits `(n, classes)`.

    Each feature has mean 0 and variance 1 over the training images, so that distances do not depend on the training.
    """

    def __init__(self, *, size: int, channels: int, classes: int) -> None:
        super().__init__()
        self.shape = {"size": size, "channels": channels, "classes": classes}
        layers: list[nn.Module] = []
        for wide, narrow in ((channels, 24), (24, 48), (48, 96)):
            layers += [nn.Conv2d(wide, narrow, 4, 2, 1, bias=False), nn.BatchNorm2d(narrow), nn.ReLU()]
        dense = nn.Linear(96 * (size // 8) ** 2, FEATURES)
        self.features = nn.Sequential(*layers, nn.Flatten(), dense, nn.BatchNorm1d(FEATURES, affine=False))
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(FEATURES, classes))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(images)
        return features, self.head(features)


def save(path: Path, network: Classifier, origin: dict[str, Any]) -> None:
    """Write a network with its shape and its origin, atomically."""
    state = {"format": FORMAT, "shape": network.shape, "weights": network.state_dict(), "provenance": origin}
    with replacing(path) as partial:
        torch.save(state, partial)


def restore(path: Path) -> tuple[Classifier, dict[str, Any]]:
    """Return a saved network, in eval mode, and its origin."""
    state = read_tensors(path)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise RefusedError(f"features: expected {path} to be a {FORMAT!r}, which examples/classifier.py writes")
    network = Classifier(**state["shape"])
    network.load_state_dict(state["weights"])
    return network.eval(), state["provenance"]


def read(dataset: str, root: Path, split: str) -> tuple[Tensor, Tensor]:
    """Return the images `(n, channels, size, size)` of a split in bytes, and their classes `(n,)`."""
    size, channels = FORMATS[dataset]
    images = load(dataset, root, size=size, channels=channels, split=split)
    labelled = fashion_mnist_data if dataset == "fashion-mnist" else torchvision().CIFAR10
    return images[list(range(len(images)))], torch.as_tensor(labelled(root, train=split == "train").targets)


def train(images: Tensor, labels: Tensor, epochs: int, classes: int = 10) -> Classifier:
    """Return a trained classifier. Images are flipped horizontally with probability 1/2."""
    network = Classifier(size=images.shape[-1], channels=images.shape[1], classes=classes)
    adam = torch.optim.Adam(network.parameters())
    steps = len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, RATE, total_steps=epochs * steps)
    for epoch in range(epochs):
        for rows in torch.randperm(len(images))[: steps * BATCH].split(BATCH):
            batch = centred(images[rows])
            mirrored = torch.where(torch.rand(BATCH, 1, 1, 1) < 0.5, batch.flip(3), batch)
            adam.zero_grad()
            loss = F.cross_entropy(network(mirrored)[1], labels[rows])
            loss.backward()
            adam.step()
            schedule.step()
        print(f"Epoch {epoch + 1} of {epochs}: loss {loss.item():.3f}", flush=True)
    return network.eval().requires_grad_(False)


def main(
    dataset: Literal["fashion-mnist", "cifar10"] = "fashion-mnist",
    data_root: Path = Path("data"),
    epochs: int = 8,
    seed: int = 0,
    out: Path | None = None,
) -> Path:
    """Train a small classifier, whose features measure the samples of a GAN.

    Args:
        dataset: images to classify
        data_root: folder of the data sets
        epochs: number of passes over the training images
        seed: seed of all random numbers
        out: file for the weights; by default runs/classifiers/DATASET.pt
    """
    out = out or Path(f"runs/classifiers/{dataset}.pt")
    torch.set_num_threads(1)
    try:
        (images, labels), (others, classes) = (read(dataset, data_root, split) for split in ("train", "test"))
    except RefusedError as error:
        sys.exit(f"error: {error}")
    torch.manual_seed(seed)
    network = train(images, labels, epochs)
    found = torch.cat([network(centred(part))[1].argmax(1) for part in others.split(1000)])
    accuracy = (found == classes).double().mean().item()
    origin = {"dataset": dataset, "epochs": epochs, "seed": seed, "test_accuracy": accuracy}
    save(out, network, origin | circumstances())
    print(f"Recognises {accuracy:.2%} of {len(others):,} test images. Weights: {out}")
    print(f"SHA-256 of the weights: {digest_of_network(network)}")
    return out


if __name__ == "__main__":
    tyro.cli(main)
